"""Curves by epoch: the log of a training run, and the scores of a pretraining's epochs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.names import METRICS, SPLIT_TITLES, quantity_of, title_of
from evaluation.plots.figures import Picture, data_description, make_panels, make_title
from evaluation.plots.palette import GREY, look
from evaluation.plots.style import legend_below
from evaluation.results import read_table

PROGRESS_COLUMNS = ("epoch", "step", "seconds", "samples_per_second")  # columns of log.csv that are no scores


@dataclass(frozen=True)
class Curves(Picture):
    """Plot loss and scores of a run by epoch."""

    source: tyro.conf.Positional[Path]
    """Folder of the run, with its log.csv."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        log = read_table(self.source / "log.csv", ("epoch",))
        return draw_curves(log, make_title(self.source)), self.source / "curves.png"


@dataclass(frozen=True)
class Epochs(Picture):
    """Plot the scores of the epochs of a pretraining, which epoch_evaluation.py has probed."""

    source: tyro.conf.Positional[Path]
    """File results_label_<task>.csv in the folder of the pretraining."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        path = self.source
        table = read_table(path, ("epoch",))
        if not any(name.startswith("val_") for name in table):
            cure = "give a results_label_<task>.csv of epoch_evaluation.py"
            raise ValueError(f"{path} has no column val_...; {cure}")
        record = path.with_suffix(".yaml")
        data = data_description(record if record.is_file() else path.parent / "environment.yaml")
        task = title_of(path.stem.removeprefix("results_label").strip("_"))
        title = f"{path.resolve().parent.name}: linear probe of each epoch{f', {task}' if task else ''}"
        title = f"{title}\n{data}".strip()
        return draw_epochs(table.sort_values("epoch", ignore_index=True), title), path.with_suffix(".png")


def log_panels(log: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of a log to draw in each panel; train_loss and val_loss share one, lr is last."""
    panels: dict[str, list[str]] = {}
    scores = [name for name in log if name not in PROGRESS_COLUMNS]
    for name in sorted(scores, key=lambda name: name == "lr"):
        panels.setdefault(name.removeprefix("train_").removeprefix("val_"), []).append(name)
    return panels


def draw_curves(log: pd.DataFrame, title: str) -> Figure:
    """Draw a training log, a panel per score."""
    panels = log_panels(log)
    figure, axes = make_panels(len(panels), title, legend_lines=1)
    for axis, (score, columns) in zip(axes, panels.items(), strict=True):
        for column in columns:
            split = split_of(column)
            style = split_style(split) if split else {"color": "black"}
            axis.plot(log["epoch"], log[column], marker="." if len(log) < 30 else None, **style)
        axis.set(xlabel="epoch", ylabel=quantity_of(score))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, columns=3)
    return figure


def split_of(column: str) -> str:
    """Return the split that a column of a log is of, "" if it is of none.

    >>> split_of("train_loss"), split_of("auroc"), split_of("readmission_auroc"), split_of("lr")
    ('train', 'val', 'val', '')
    """
    split = column.partition("_")[0]
    if split in SPLIT_TITLES:
        return split
    return "val" if column.rpartition("_")[2] in METRICS else ""  # scores are of the validation split


def split_style(split: str) -> dict[str, Any]:
    """Return how the line of a split looks, and its name."""
    number = list(SPLIT_TITLES).index(split)
    color, dashes, *_ = look(number)
    return {"color": color, "linestyle": (0, dashes) if dashes else "-", "label": SPLIT_TITLES[split]}


def epoch_panels(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return {score: {split: column}} of the columns <split>_<score>, without those of single labels."""
    panels: dict[str, dict[str, str]] = {}
    for name in table:
        split, separator, score = name.partition("_")
        if separator and "[" not in name:
            panels.setdefault(score, {})[split] = name
    return panels


def draw_epochs(table: pd.DataFrame, title: str) -> Figure:
    """Draw a panel per score and a line per split; mark the best validation epoch in the first panel."""
    panels = epoch_panels(table)
    figure, axes = make_panels(len(panels), title, legend_lines=1)
    for axis, (score, columns) in zip(axes, panels.items(), strict=True):
        for split, column in columns.items():
            style = split_style(split) if split in SPLIT_TITLES else {"label": split}
            axis.plot(table["epoch"], table[column], marker=".", **style)
        axis.set(xlabel="epoch of the pretraining", ylabel=quantity_of(score))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    validation = table[f"val_{next(iter(panels))}"]
    if validation.notna().any():
        best = table["epoch"][validation.idxmax()]
        axes[0].axvline(best, color=GREY, linestyle=":", label=f"best: {best:g}")
    legend_below(figure, columns=4)
    return figure
