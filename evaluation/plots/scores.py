"""Scores of several runs by label: bars with intervals, and a heatmap."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from evaluation.names import data_notice, label_title, metric_of, title_of
from evaluation.plots.figures import Picture, data_description, make_panels, select, text_inches, unique
from evaluation.plots.palette import look
from evaluation.plots.style import LEGEND_LINE, SMALL_TEXT, wrap
from evaluation.results import read_results, read_table

LABEL_WIDTH = 36  # characters of a label in a line


@dataclass(frozen=True)
class ScoreSelection(Picture):
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
        shown = f"{title_of(self.source.stem)}: {metric_of(self.metric).title}, {self.split}"
        return "\n".join([shown, *sorted(data - {""})])


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
        table = by_label_and_run(scores)
        figure = draw_heatmap(table, titles_of(list(table.index), scores), self.metric, self.title(scores))
        return figure, self.source.with_name(f"{self.source.stem}_heatmap_{self.metric}.png")


def by_label_and_run(scores: pd.DataFrame, column: str = "value") -> pd.DataFrame:
    """Return a column of the scores as a table of labels (rows) and runs (columns)."""
    table = scores.pivot(index="label", columns="run", values=column)
    return table.reindex(index=unique(scores["label"]), columns=unique(scores["run"])).astype(np.float64)


def titles_of(labels: Sequence[str], scores: pd.DataFrame) -> list[str]:
    """Return labels as readers know them, in lines; scores have the column task."""
    tasks = dict(zip(scores["label"], scores["task"], strict=True))
    return [wrap(label_title(label, tasks[label]), LABEL_WIDTH) for label in labels]


def draw_bars(scores: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw bars of scores: columns run, task, label, value, low, high, a row for each run and label."""
    values, low, high = (by_label_and_run(scores, column) for column in ("value", "low", "high"))
    titles, runs = titles_of(list(values.index), scores), list(values.columns)
    rows = np.arange(len(titles))
    names = [wrap(run, 90) for run in runs]
    needed = [max(0.13 * (len(runs) + 1), 0.15 * len(text.splitlines()) + 0.1) for text in titles]
    height = max(needed) * len(titles) + LEGEND_LINE * (sum(len(n.splitlines()) for n in names) + 1) + 1.2
    figure, (axis,) = make_panels(1, title, width=5 + text_inches(titles), height=height)
    thickness = 0.8 / len(runs)
    interval: str | None = "95 % interval, over subjects" if np.isfinite(low).any(axis=None) else None
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        y = rows + (number - (len(runs) - 1) / 2) * thickness
        color, _, _, hatch = look(number)
        axis.barh(y, values[run], thickness, label=name, color=color, hatch=hatch, edgecolor="white")
        errors = np.stack([values[run] - low[run], high[run] - values[run]])
        known = np.isfinite(errors).all(axis=0)
        x, xerr = values[run][known], np.maximum(errors[:, known], 0)
        axis.errorbar(x, y[known], xerr=xerr, fmt="none", ecolor="black", capsize=2, label=interval)
        interval = None if known.any() else interval  # named once
    axis.set_yticks(rows, titles, fontsize=SMALL_TEXT)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=metric_of(metric).title, ylim=(len(titles) - 0.4, -0.6))
    figure.legend(loc="outside lower center")
    return figure


def draw_heatmap(table: pd.DataFrame, titles: Sequence[str], metric: str, title: str) -> Figure:
    """Draw a table of labels and runs (see `by_label_and_run`), each value as colour and number."""
    runs = [wrap(run, 30) for run in table.columns]
    lines = max(len(run.splitlines()) for run in runs)
    width = max(0.6, 0.16 * lines) * len(runs) + 2 + text_inches(titles)
    row = max(0.25, 0.16 * max(len(text.splitlines()) for text in titles))
    figure, (axis,) = make_panels(1, title, width, row * len(titles) + 1 + text_inches(runs))
    image = axis.imshow(table.to_numpy(), aspect="auto", cmap="viridis")
    middle = np.mean(image.get_clim())
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if np.isfinite(value):
            color = "white" if value < middle else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=SMALL_TEXT)
    axis.set_xticks(np.arange(len(runs)), runs, rotation=90, fontsize=SMALL_TEXT)
    axis.set_yticks(np.arange(len(titles)), titles, fontsize=SMALL_TEXT)
    axis.grid(visible=False)
    figure.colorbar(image, label=metric_of(metric).title)
    return figure
