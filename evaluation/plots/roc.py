"""ROC and precision-recall curves, with bands from a bootstrap over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resamples
from evaluation.plots.figures import MAX_NAMED_LINES, SMALL_TEXT, PredictionSelection, line_style, make_panels

GRID = np.linspace(0, 1, 101)  # x values at which curves are averaged

Points = tuple[np.ndarray, np.ndarray]  # x and y of a curve, with increasing x


@dataclass(frozen=True)
class Roc(PredictionSelection):
    """Plot ROC and precision-recall curves of a run, a line per label and the mean over labels."""

    resamples: int = 200
    """Resamples of the subjects for the 95 % band around the curve; 0 for no band."""
    seed: int = 0
    """Seed of the resamples."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        predictions = self.read()
        draws = Resamples.of(predictions["subject_id"].to_numpy(), self.resamples, self.seed)
        curve_sets = [compute_curves(name, predictions, draws) for name in CURVES]
        return draw_roc(curve_sets, self.title()), self.source / f"roc_{self.split}.png"


class CurveSet(NamedTuple):
    """The curves of several labels."""

    area_name: str  # AUROC or AUPRC
    curves: dict[str, Points]  # by label
    areas: dict[str, float]
    mean: np.ndarray  # [101], height of the mean curve on GRID
    band: np.ndarray | None  # [2, 101], ends of its 95 % interval; None without resamples
    excluded: int  # labels with one class


def roc_points(truth: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> Points:
    """Return false and true positive rates, from (0, 0) to (1, 1)."""
    x, y, _ = roc_curve(truth, probability, sample_weight=weight, drop_intermediate=False)
    return x, y


def precision_points(truth: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> Points:
    """Return recall and precision, a step function whose area is the average precision."""
    precision, recall, _ = precision_recall_curve(truth, probability, sample_weight=weight)
    precision[-1] = precision[-2]  # scikit-learn adds a precision of 1 at recall 0
    return recall[::-1], precision[::-1]


def interpolate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the height [101] on GRID of a curve of straight lines."""
    return np.asarray(np.interp(GRID, x, y))


def interpolate_steps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the height [101] on GRID of a step function, in which each y extends to the x before."""
    return np.asarray(y[np.minimum(np.searchsorted(x, GRID), len(y) - 1)])


CURVES = {
    "AUROC": (metrics.auroc, roc_points, interpolate),
    "AUPRC": (metrics.auprc, precision_points, interpolate_steps),
}


def compute_curves(area_name: str, predictions: pd.DataFrame, draws: Resamples) -> CurveSet:
    """Return the curves of a table of predictions whose truth is known; `draws` resample its rows.

    Raises:
        ValueError: no label has both classes.
    """
    area, points, heights = CURVES[area_name]
    table = predictions.assign(subject=draws.subject).sort_values("probability", ascending=False)
    parts = {name: table[table["label"] == name] for name in dict.fromkeys(predictions["label"])}
    labels = {
        name: [part[column].to_numpy() for column in ("truth", "probability", "subject")]
        for name, part in parts.items()
        if part["truth"].nunique() == 2
    }
    if not labels:
        raise ValueError("no label has both classes, so there is no curve; choose another --split")

    def mean_height(counts: np.ndarray) -> np.ndarray:
        weighted = ((truth, probability, counts[subject]) for truth, probability, subject in labels.values())
        both = [heights(*points(t, p, weight)) for t, p, weight in weighted if 0 < weight @ t < weight.sum()]
        return np.mean(both, axis=0) if both else np.full(len(GRID), np.nan)

    resampled = [mean_height(draws.counts(range(r, r + 1))[0]) for r in range(draws.count)]
    tails = (bootstrap.TAIL, 1 - bootstrap.TAIL)
    return CurveSet(
        area_name,
        curves={name: points(truth, probability) for name, (truth, probability, _) in labels.items()},
        areas={name: area(truth, probability) for name, (truth, probability, _) in labels.items()},
        mean=mean_height(np.ones(draws.subjects)),
        band=np.nanquantile(resampled, tails, axis=0) if resampled else None,
        excluded=len(parts) - len(labels),
    )


def draw_roc(curve_sets: Sequence[CurveSet], title: str) -> Figure:
    """Draw ROC curves on the left and precision-recall curves on the right."""
    figure, (left, right) = make_panels(2, title)
    _draw_curves(left, curve_sets[0], "default")
    _draw_curves(right, curve_sets[1], "steps-pre")
    left.plot([0, 1], [0, 1], color="grey", linestyle=":")
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    right.set(xlabel="recall", ylabel="precision", ylim=(-0.05, 1.05))
    return figure


def _draw_curves(axis: Axes, curves: CurveSet, drawstyle: str) -> None:
    count, name = len(curves.curves), curves.area_name
    for label, (x, y) in curves.curves.items():
        text = f"{label}: {name} {curves.areas[label]:.3f}" if count <= MAX_NAMED_LINES else None
        axis.plot(x, y, label=text, drawstyle=drawstyle, **line_style(one_of_many=count > 1))
    if count > 1:
        area = np.mean(list(curves.areas.values()))
        axis.plot(GRID, curves.mean, color="black", label=f"mean of {count} labels: {name} {area:.3f}")
    if curves.band is not None:
        low, high = curves.band
        label = f"95 % band of the {'mean' if count > 1 else 'curve'}, over subjects"
        axis.fill_between(GRID, low, high, color="black", alpha=0.2, linewidth=0, label=label)
    if curves.excluded:
        axis.set_title(f"without {curves.excluded} labels that have one class", fontsize=SMALL_TEXT)
    axis.legend(fontsize=SMALL_TEXT)
