"""Reliability diagram: the fraction of positives against the predicted probability."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evaluation.metrics import CALIBRATION_BINS, calibration_bin
from evaluation.plots.figures import MAX_NAMED_LINES, PredictionSelection, line_style, make_panels


@dataclass(frozen=True)
class Calibration(PredictionSelection):
    """Plot the fraction of positives against the mean probability in ten bins, and a histogram."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        return draw_calibration(self.read(), self.title()), self.source / f"calibration_{self.split}.png"


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
    figure, (left, right) = make_panels(2, title)
    labels = predictions.groupby("label", sort=False)
    for name, rows in labels:
        bins = reliability(rows)
        label = name if len(labels) <= MAX_NAMED_LINES else None
        left.plot(bins["probability"], bins["truth"], label=label, **line_style(one_of_many=len(labels) > 1))
    if len(labels) > 1:
        bins = reliability(predictions)
        left.plot(bins["probability"], bins["truth"], color="black", marker=".", label="all labels")
    left.plot([0, 1], [0, 1], color="grey", linestyle=":")
    left.set(xlabel="mean probability", ylabel="fraction of positives")
    left.legend()
    right.hist(predictions["probability"], bins=CALIBRATION_BINS, range=(0, 1), color="grey")
    right.set(xlabel="probability", ylabel="predictions", yscale="log")
    return figure
