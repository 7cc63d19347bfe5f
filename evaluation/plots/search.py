"""The history of a search of settings, and how important each setting was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.names import metric_of, quantity_of
from evaluation.plots.figures import Picture, data_description, make_panels
from evaluation.plots.palette import BLUE, GREY, ORANGE, RED
from evaluation.plots.style import legend_below
from evaluation.results import read_table
from utils.yaml_files import read_yaml_mapping

TEXT = ("state", "setting")
MARKERS = {"complete": ("o", BLUE), "pruned": ("x", ORANGE), "failed": ("v", RED)}


@dataclass(frozen=True)
class Search(Picture):
    """Plot the scores of the trials of training.search, and the importance of each setting."""

    source: tyro.conf.Positional[Path]
    """Folder of the search of one method, with its trials.csv."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        trials = read_table(self.source / "trials.csv", ("trial", "state", "value"), TEXT)
        path = self.source / "importance.csv"
        importance = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["setting", "importance"])
        record = self.source / "search.yaml"
        monitor = str(read_yaml_mapping(record).get("monitor", "")) if record.is_file() else ""
        title = f"{self.source.resolve().name}: search\n{data_description(record)}".strip()
        metric = f"{metric_of(monitor).title}, validation"
        return draw_search(trials, importance, metric, title), self.source / "search.png"


def draw_search(trials: pd.DataFrame, importance: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw the history, and beside it the importance if it is known."""
    figure, axes = make_panels(2 if len(importance) else 1, title, height=4.2)
    draw_history(axes[0], trials, metric)
    if len(importance):
        names = [quantity_of(name.rpartition(".")[2]) for name in importance["setting"]]
        axes[1].barh(names, importance["importance"])
        axes[1].invert_yaxis()
        axes[1].set(xlabel="importance: share of the score's variance (fANOVA)", xlim=(0, 1))
    return figure


def draw_history(axis: Axes, trials: pd.DataFrame, metric: str) -> None:
    """Draw each trial by its state, and the best of those that completed so far."""
    lowest = trials["value"].min()
    for state, part in trials.groupby("state", sort=False):
        marker, color = MARKERS[str(state)]
        label = f"{state} ({len(part)})"
        axis.scatter(part["trial"], part["value"].fillna(lowest), marker=marker, color=color, label=label)
    completed = trials[trials["state"] == "complete"]
    best = completed["value"].cummax()
    axis.step(completed["trial"], best, where="post", color=GREY, linestyle="-", label="best so far")
    axis.set(xlabel="trial", ylabel=metric)
    legend_below(axis, columns=2)
