"""Scores by the fraction of the training subjects whose labels were used, a line for each method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.figure import Figure

from evaluation.layout import columns_that_tell
from evaluation.names import data_notice, metric_of, title_of
from evaluation.plots.figures import Picture, make_panels
from evaluation.plots.palette import look
from evaluation.plots.style import legend_below, wrap
from evaluation.results import read_settings
from evaluation.seeds import CONTEXT, METHOD, RowSelection, select_rows
from utils.config import digest

# Equal in all runs of a line. Its settings differ in the fraction alone: see `recipes`.
LINE = [*METHOD, *(name for name in CONTEXT if name not in ("label_fraction", "settings")), "recipe"]


@dataclass(frozen=True)
class Labels(Picture):
    """Plot scores by --label_fraction, with their intervals over subjects, the mean over seeds of each."""

    source: tyro.conf.Positional[Path]
    """File results/<task>.csv that run_gpu.py writes."""
    metric: str = "auroc"
    """Score to show."""
    split: str = "test"
    """Split to show."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        chosen = RowSelection(
            self.source.stem, (self.source.parent,), metric=(self.metric,), split=self.split
        )
        table = by_fraction(select_rows(chosen).rows)
        if table.empty:
            raise ValueError(
                f"{self.source}: no method has runs of several --label_fraction; train some, or set LABELS "
                "for tasks/run_all.sh"
            )
        kinds = "\n".join(dict.fromkeys(data_notice([kind]) for kind in table["data"]))
        title = f"{title_of(self.source.stem)}, {self.split}\n{kinds}"
        path = self.source.with_name(f"{self.source.stem}_labels_{self.metric}.png")
        return draw_labels(table, metric_of(self.metric).title, title), path


def by_fraction(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds by line and fraction, of the lines that have several fractions.

    A seed of a line that started from several checkpoints counts with that which has the most fractions.
    """
    rows = rows.assign(recipe=recipes(rows))
    start = [*LINE, "seed", "checkpoint_hash"]
    fractions = rows.groupby(start, dropna=False)["label_fraction"].transform("nunique")
    most = fractions.groupby([rows[name] for name in [*LINE, "seed"]], dropna=False).transform("max")
    rows = rows[(fractions == most) & (fractions > 1)]
    columns = {name: (name, "mean") for name in ("value", "low", "high")}
    table = rows.groupby([*LINE, "label_fraction"], sort=False, dropna=False).agg(
        **columns, seeds=("seed", "nunique")
    )
    return table.reset_index().sort_values("label_fraction", kind="stable", ignore_index=True)


def recipes(rows: pd.DataFrame) -> list[str]:
    """Return a hash of the settings of each row without the fraction; that of all, if they are not known."""
    names = {}
    for source, name in rows[["source", "settings"]].drop_duplicates().itertuples(index=False):
        known = read_settings(Path(source).parent, name)
        known.pop("label_fraction", None)
        names[source, name] = digest(known) if known else name
    return [names[key] for key in zip(rows["source"], rows["settings"], strict=True)]


def names_that_tell(table: pd.DataFrame) -> list[str]:
    """Return what of LINE tells the lines of a table apart; the recipe only if they look alike without it."""
    varying = columns_that_tell(table, [], LINE[:-1], []) or ["protocol"]
    return columns_that_tell(table, varying, [], ["recipe"])


def draw_labels(table: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw what `by_fraction` returned: a line for each method, over the fraction on a logarithmic axis."""
    lines = list(table.groupby(LINE, sort=False, dropna=False))
    figure, (axis,) = make_panels(1, title, width=6.4, legend_lines=len(lines) // 2 + 1)
    telling = names_that_tell(table)
    for number, (_, line) in enumerate(lines):
        first, (color, dashes, marker, _) = line.iloc[0], look(number)
        label = wrap(", ".join(title_of(str(first[name])) for name in telling), 44)
        x, style = line["label_fraction"], (0, dashes) if dashes else "-"
        axis.plot(x, line["value"], label=label, color=color, linestyle=style, marker=marker, markersize=4)
        axis.fill_between(x, line["low"], line["high"], color=color, alpha=0.15, linewidth=0)
    ticks = sorted(table["label_fraction"].unique())
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set(xlabel="training subjects with labels", ylabel=metric)
    legend_below(figure, columns=2)
    return figure
