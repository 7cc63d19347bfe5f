"""Decision curves: net benefit by the probability above which one would act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.plots.figures import Picture, label_titles, make_panels, make_title
from evaluation.plots.palette import BLACK, BLUE, RED
from evaluation.plots.style import legend_below, wrap
from evaluation.results import read_table

COLUMNS = ("label", "threshold", "treat_all", "net_benefit", "net_benefit_low", "net_benefit_high")
SINGLE_WIDTH = 6.0  # inches
MAX_PANELS = 6  # where there are more labels, the picture shows their mean alone
MEAN = "macro"


@dataclass(frozen=True)
class Decision(Picture):
    """Plot net benefit by threshold, as evaluation.decision has computed it."""

    source: tyro.conf.Positional[Path]
    """File decision_<split>.csv in the folder of the run."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        table = read_table(self.source, COLUMNS, ("label",))
        folder = self.source.parent
        split = self.source.stem.removeprefix("decision_").replace("_", ", ")
        titles = label_titles(folder, list(table["label"].unique()))
        title = make_title(folder, f", {split}")
        return draw_decision(table, titles, title), self.source.with_suffix(".png")


def draw_decision(table: pd.DataFrame, titles: Mapping[str, str], title: str) -> Figure:
    """Draw a panel for each label, or one of their mean if there are many; `titles` names the labels."""
    labels = list(table["label"].unique())
    shown = (
        [MEAN] if MEAN in labels and len(labels) > MAX_PANELS else [name for name in labels if name != MEAN]
    )
    width = SINGLE_WIDTH if len(shown) == 1 else 0.0
    figure, axes = make_panels(len(shown), title, width, legend_lines=2)
    for axis, label in zip(axes, shown, strict=True):
        draw_label(axis, table[table["label"] == label])
        axis.set(xlabel="threshold probability", ylabel="net benefit")
        name = f"mean of {len(labels) - 1} labels" if label == MEAN else titles[label]
        axis.set_title(wrap(name, 48), fontsize="medium")
    legend_below(figure, columns=2)
    return figure


def draw_label(axis: Axes, table: pd.DataFrame) -> None:
    """Draw the predictions with their band, and acting for all and for none."""
    x = table["threshold"]
    axis.plot(x, table["net_benefit"], color=BLUE, label="act on the prediction")
    band = table["net_benefit_low"], table["net_benefit_high"]
    axis.fill_between(x, *band, color=BLUE, alpha=0.2, linewidth=0, label="95 % interval, over subjects")
    axis.plot(x, table["treat_all"], color=RED, linestyle="--", label="act for all")
    axis.axhline(0, color=BLACK, linestyle=":", label="act for none")
    highest = max(float(table["net_benefit_high"].max()), float(table["treat_all"].max()), 0.01)
    axis.set(xlim=(0, 1), ylim=(-0.25 * highest, 1.08 * highest))
