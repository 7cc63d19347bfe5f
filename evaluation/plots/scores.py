"""Scores of several runs by label: bars with intervals, and a heatmap."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from evaluation.names import data_notice
from evaluation.plots.figures import (
    SMALL_TEXT,
    data_description,
    distinct_colors,
    make_panels,
    select,
    text_inches,
    unique,
)
from evaluation.results import read_results, read_table


@dataclass(frozen=True)
class ScoreSelection:
    """Which scores to show."""

    source: tyro.conf.Positional[Path]
    """File results/<task>.csv that run_gpu.py writes."""
    split: str = "test"
    """Split to show."""
    metric: str = "auroc"
    """Score to show."""
    label: tuple[str, ...] = ()
    """Labels to show; all if none is given."""
    run: tuple[str, ...] = ()
    """Runs to show; all if none is given."""
    save_dir: Path = Path("runs")
    """Folder of the runs, which say whether their data are synthetic if the rows do not."""

    def read(self) -> pd.DataFrame:
        """Return a row for each run and label; runs of one name that started apart have it in their names."""
        read_table(self.source, ("run", "task", "metric", "label", "value", "low", "high", "started"))
        table = read_results(self.source)
        filters = {"split": (self.split,), "metric": (self.metric,), "run": self.run, "label": self.label}
        for column, values in filters.items():
            table = select(table, column, values, self.source)
        repeated = table.groupby("run")["started"].transform("nunique") > 1
        names = table["run"].where(~repeated, table["run"] + ", " + table["started"])
        return table.assign(folder=table["run"], run=names).drop_duplicates(["run", "label"], keep="last")

    def title(self, scores: pd.DataFrame) -> str:
        """Return the title: what is shown, and whose data these are."""
        known = {data_notice([kind]) for kind in scores["data"] if kind}
        unknown = scores["folder"][scores["data"] == ""].unique()
        data = known | {data_description(self.save_dir / run / "environment.yaml") for run in unknown}
        return "\n".join([f"{self.source.stem}: {self.metric}, {self.split}", *sorted(data - {""})])


@dataclass(frozen=True)
class Bars(ScoreSelection):
    """Plot a bar per label and run, with its interval if there is one."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        scores = self.read()
        figure = draw_bars(scores, self.metric, self.title(scores))
        return figure, self.source.with_name(f"{self.source.stem}_bars_{self.metric}.png")


@dataclass(frozen=True)
class Heatmap(ScoreSelection):
    """Plot a coloured cell per label (row) and run (column)."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        scores = self.read()
        figure = draw_heatmap(by_label_and_run(scores), self.metric, self.title(scores))
        return figure, self.source.with_name(f"{self.source.stem}_heatmap_{self.metric}.png")


def by_label_and_run(scores: pd.DataFrame, column: str = "value") -> pd.DataFrame:
    """Return a column of the scores as a table of labels (rows) and runs (columns)."""
    table = scores.pivot(index="label", columns="run", values=column)
    return table.reindex(index=unique(scores["label"]), columns=unique(scores["run"])).astype(np.float64)


def draw_bars(scores: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw bars of scores with the columns run, label, value, low, high, a row for each run and label."""
    values, low, high = (by_label_and_run(scores, column) for column in ("value", "low", "high"))
    labels, runs = list(values.index), list(values.columns)
    height = 0.13 * len(labels) * (len(runs) + 1) + 0.25 * len(runs) + 1.5
    figure, (axis,) = make_panels(1, title, width=5 + text_inches(labels), height=height)
    thickness = 0.8 / len(runs)
    rows = np.arange(len(labels))
    interval: str | None = "95 % interval, over subjects" if np.isfinite(low).any(axis=None) else None
    for number, (run, color) in enumerate(zip(runs, distinct_colors(len(runs)), strict=True)):
        y = rows + (number - (len(runs) - 1) / 2) * thickness
        axis.barh(y, values[run], thickness, label=run, color=color)
        errors = np.stack([values[run] - low[run], high[run] - values[run]])
        known = np.isfinite(errors).all(axis=0)
        x, xerr = values[run][known], np.maximum(errors[:, known], 0)
        axis.errorbar(x, y[known], xerr=xerr, fmt="none", ecolor="black", capsize=2, label=interval)
        interval = None if known.any() else interval  # named once
    axis.set_yticks(rows, labels, fontsize=SMALL_TEXT)
    axis.set(xlabel=metric, ylim=(len(labels) - 0.4, -0.6))
    figure.legend(loc="outside lower right", fontsize=SMALL_TEXT)
    return figure


def draw_heatmap(table: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw a table of labels and runs (see `by_label_and_run`), each value as colour and number."""
    labels, runs = list(table.index), list(table.columns)
    width = 0.6 * len(runs) + 2 + text_inches(labels)
    height = 0.25 * len(labels) + 1 + text_inches(runs)
    figure, (axis,) = make_panels(1, title, width, height)
    image = axis.imshow(table.to_numpy(), aspect="auto", cmap="viridis")
    middle = np.mean(image.get_clim())
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if np.isfinite(value):
            color = "white" if value < middle else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=SMALL_TEXT)
    axis.set_xticks(np.arange(len(runs)), runs, rotation=90, fontsize=SMALL_TEXT)
    axis.set_yticks(np.arange(len(labels)), labels, fontsize=SMALL_TEXT)
    figure.colorbar(image, label=metric)
    return figure
