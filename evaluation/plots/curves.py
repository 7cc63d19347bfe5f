"""Curves by epoch: the log of a training run, and the scores of a pretraining's epochs."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.figure import Figure

from evaluation.plots.figures import data_description, make_panels, make_title
from evaluation.results import read_table

PROGRESS_COLUMNS = ("epoch", "step", "seconds", "samples_per_second")  # columns of log.csv that are no scores


@dataclass(frozen=True)
class Curves:
    """Plot loss and scores of a run by epoch."""

    source: tyro.conf.Positional[Path]
    """Folder of the run, with its log.csv."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        log = read_table(self.source / "log.csv", ("epoch",))
        return draw_curves(log, make_title(self.source)), self.source / "curves.png"


@dataclass(frozen=True)
class Epochs:
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
        title = f"{path.resolve().parent.name}: {path.stem}\n{data}".strip()
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
    figure, axes = make_panels(len(panels), title)
    for axis, (score, columns) in zip(axes, panels.items(), strict=True):
        for column in columns:
            axis.plot(log["epoch"], log[column], label=column, marker="." if len(log) < 30 else None)
        axis.set(xlabel="epoch", ylabel=score)
        axis.legend()
    return figure


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
    figure, axes = make_panels(len(panels), title)
    for axis, (score, columns) in zip(axes, panels.items(), strict=True):
        for split, column in columns.items():
            axis.plot(table["epoch"], table[column], marker=".", label=split)
        axis.set(xlabel="epoch of the pretraining", ylabel=score)
    validation = table[f"val_{next(iter(panels))}"]
    if validation.notna().any():
        best = table["epoch"][validation.idxmax()]
        axes[0].axvline(best, color="grey", linestyle=":", label=f"best: {best:g}")
    axes[0].legend()
    return figure
