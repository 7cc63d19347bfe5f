"""Scores by the fraction of X-rays that are missing, a panel for each fusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evaluation.names import metric_of, title_of
from evaluation.plots.figures import Picture, make_panels, unique
from evaluation.plots.palette import BLUE, GREY, ORANGE, RED, SKY
from evaluation.plots.style import legend_below, wrap
from evaluation.results import read_table

TEXT = ("task", "fusion", "data", "trained_on", "tested_on", "metric")
COLUMNS = (*TEXT, "rate", "value", "low", "high")
ALONE = "ehr"
PANELS_PER_ROW = 6
STYLES: dict[
    tuple[str, str], tuple[str, Any, str]
] = {  # by the stays of training and test: colour, line and mark
    ("all", "all"): (BLUE, "-", "o"),
    ("all", "paired"): (RED, (0, (5, 2)), "s"),
    ("paired", "all"): (SKY, "-", "^"),
    ("paired", "paired"): (ORANGE, (0, (5, 2)), "D"),
}


@dataclass(frozen=True)
class Robustness(Picture):
    """Plot the scores of training.robustness by the fraction of X-rays that are missing."""

    source: tyro.conf.Positional[Path]
    """File <task>.csv of python -m training.robustness."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        table = read_table(self.source, COLUMNS, TEXT)
        title = f"{title_of(self.source.stem)}\n{table['data'].iloc[0]}".strip()
        return draw_robustness(table, title), self.source.with_suffix(".png")


def draw_robustness(table: pd.DataFrame, title: str) -> Figure:
    """Draw a panel for each fusion, with the EHR alone as a grey line in each."""
    fusions = [fusion for fusion in unique(table["fusion"]) if fusion != ALONE] or [ALONE]
    columns = min(len(fusions), PANELS_PER_ROW)
    rows = -(-len(fusions) // columns)
    figure, axes = make_panels(len(fusions), title, max(2.1 * columns, 6.5), 2.0 * rows + 1.5, PANELS_PER_ROW)
    span = table["low"].min(), table["high"].max()
    alone = table[(table["fusion"] == ALONE) & (table["rate"] == 0)]
    for index, (axis, fusion) in enumerate(zip(axes, fusions, strict=True)):
        draw_fusion(axis, table[table["fusion"] == fusion], alone)
        axis.set(title=wrap(title_of(fusion), 24), xlim=(0, 1), ylim=span)
        axis.title.set_fontsize("medium")
        axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        if index % columns == 0:
            axis.set_ylabel(metric_of(table["metric"].iloc[0]).title)
        if index >= len(fusions) - columns:
            axis.set_xlabel("X-rays missing (%)")
    legend_below(figure, columns=2)
    return figure


def draw_fusion(axis: Axes, table: pd.DataFrame, alone: pd.DataFrame) -> None:
    """Draw the lines of a fusion with their intervals, and those of the EHR alone."""
    for tested_on, value in zip(alone["tested_on"], alone["value"], strict=True):
        dashes = "-" if tested_on == "all" else ":"
        label = f"EHR alone, {tested(tested_on)}"
        axis.axhline(value, color=GREY, linewidth=1.0, linestyle=dashes, label=label)
    for (trained_on, tested_on), line in table.groupby(["trained_on", "tested_on"], sort=False):
        color, style, marker = STYLES[trained_on, tested_on]
        label = f"trained on {trained_on} stays, {tested(tested_on)}"
        axis.plot(
            line["rate"],
            line["value"],
            label=label,
            color=color,
            linestyle=style,
            linewidth=1.4,
            marker=marker,
            markersize=3,
        )
        axis.fill_between(line["rate"], line["low"], line["high"], color=color, alpha=0.15, linewidth=0)


def tested(stays: str) -> str:
    """Return which stays a score is of."""
    return "all test stays" if stays == "all" else "test stays with an X-ray"
