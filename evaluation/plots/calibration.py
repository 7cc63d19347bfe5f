"""Reliability diagram: the fraction of positives against the predicted probability."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from evaluation.metrics import CALIBRATION_BINS, calibration_bin
from evaluation.plots.figures import MAX_NAMED_LINES, PredictionSelection, line_style, make_panels
from evaluation.plots.palette import BLACK, GREY
from evaluation.plots.style import legend_below, wrap


@dataclass(frozen=True)
class Calibration(PredictionSelection):
    """Plot the fraction of positives against the mean probability in ten bins, and a histogram."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        predictions = self.read()
        titled = predictions.assign(label=predictions["label"].map(self.titles(predictions)))
        return draw_calibration(titled, self.title()), self.source / f"calibration_{self.split}.png"


def reliability(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return mean probability and mean truth of each bin that is not empty.

    scikit-learn's calibration_curve closes the bins on the other side, which moves rounded probabilities.

    >>> reliability(pd.DataFrame({"probability": [0.5, 0.5, 0.1], "truth": [1, 0, 0]})).to_numpy().tolist()
    [[0.1, 0.0], [0.5, 0.5]]
    """
    bins = calibration_bin(predictions["probability"].to_numpy())
    return predictions.groupby(bins)[["probability", "truth"]].mean()


def draw_calibration(predictions: pd.DataFrame, title: str) -> Figure:
    """Draw a line per label, a bold line of all labels together, and how many predictions are in each bin."""
    labels = predictions.groupby("label", sort=False)
    is_named = len(labels) <= MAX_NAMED_LINES
    names = [wrap(name, 60) for name in labels.groups] if is_named else []
    figure, (left, right) = make_panels(2, title, legend_lines=len(names) // 2 + 2)
    for number, (name, rows) in enumerate(labels):
        bins = reliability(rows)
        label = wrap(name, 60) if is_named else "" if number else "each label"
        left.plot(bins["probability"], bins["truth"], label=label or None, **line_style(len(labels)))
    if len(labels) > 1:
        bins = reliability(predictions)
        left.plot(bins["probability"], bins["truth"], "-", color=BLACK, marker=".", label="all labels")
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect calibration")
    left.set(
        xlabel="mean predicted probability", ylabel="fraction of positives", xlim=(0, 1), ylim=(-0.02, 1.02)
    )
    right.hist(predictions["probability"], bins=CALIBRATION_BINS, range=(0, 1), color=GREY, edgecolor="white")
    right.set(xlabel="predicted probability", ylabel="number of predictions", yscale="log", xlim=(0, 1))
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    legend_below(figure, columns=2)
    return figure
