"""ROC and precision-recall curves, their means over labels, and bands from a bootstrap over subjects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resamples
from utils.lazy_pandas import pd

GRID = np.linspace(0, 1, 101)  # x values at which curves are averaged

Points = tuple[np.ndarray, np.ndarray]  # x and y of a curve, with increasing x


class CurveSet(NamedTuple):
    """The curves of several labels."""

    area_name: str  # AUROC or AUPRC
    curves: dict[str, Points]  # by label
    areas: dict[str, float]
    mean: np.ndarray  # [101], height of the mean curve on GRID
    band: np.ndarray | None  # [2, 101], ends of its 95 % interval; None without resamples
    excluded: int  # labels with one class


def roc_points(truth: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> Points:
    """Return false and true positive rates, from (0, 0) to (1, 1); arguments as of `_running_totals`."""
    hits, alarms = (np.append(0, totals) for totals in _running_totals(truth, probability, weight))
    return alarms / alarms[-1], hits / hits[-1]


def precision_points(truth: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> Points:
    """Return recall and precision, a step function whose area is the average precision; see `roc_points`."""
    hits, alarms = _running_totals(truth, probability, weight)
    precision = hits / (hits + alarms)
    return np.append(0, hits / hits[-1]), np.append(precision[0], precision)


def _running_totals(
    truth: np.ndarray, probability: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of the positives and negatives down to each distinct probability, float64 [points].

    `truth` [n] is 0 or 1, both with a weight, and `probability` [n] falls; `weight` [n] is 1 by default. A
    sample without weight makes no point.
    """
    if weight is None:
        weight = np.ones(len(truth))
    counts = weight > 0
    truth, probability, weight = truth[counts], probability[counts], weight[counts].astype(np.float64)
    is_last = np.append(probability[1:] != probability[:-1], True)  # of those that are tied
    return np.cumsum(truth * weight)[is_last], np.cumsum((1 - truth) * weight)[is_last]


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
    grouped = dict(iter(table.groupby("label", sort=False, observed=True)))
    parts = {name: grouped[name] for name in predictions["label"].unique()}
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

    curves = {name: points(truth, probability) for name, (truth, probability, _) in labels.items()}
    resampled = [mean_height(draws.counts(range(r, r + 1))[0]) for r in range(draws.count)]
    tails = (bootstrap.TAIL, 1 - bootstrap.TAIL)
    return CurveSet(
        area_name,
        curves=curves,
        areas={name: area(truth, probability) for name, (truth, probability, _) in labels.items()},
        mean=np.mean([heights(*curve) for curve in curves.values()], axis=0),
        band=np.nanquantile(resampled, tails, axis=0) if resampled else None,
        excluded=len(parts) - len(labels),
    )
