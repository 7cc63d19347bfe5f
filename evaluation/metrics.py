"""Scores of predictions: exact under ties, silent about nothing, unknown labels left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

CALIBRATION_BINS = 10
MAPE_OFFSET = 0.1  # added to the true value that MAPE divides by, as in the published benchmark


class Score(TypedDict):
    """One number from `n` known labels, `positives` of them 1 (0 for an ordinal label, which has none).

    low and high are the ends of its 95 % interval, once it has one.
    """

    label: str
    metric: str
    value: float
    n: int
    positives: int
    low: NotRequired[float]
    high: NotRequired[float]


class Amounts(NamedTuple):
    """What lies behind an ordinal label: the true amounts [n], NaN where unknown, in the label's own unit,
    and the amount that each bin stands for [K], NaN for a bin of which nothing is known.
    """

    truth: np.ndarray
    of_bin: np.ndarray

    def predicted(self, probability: np.ndarray) -> np.ndarray:
        """The amount [n] of the likeliest bin, among those that stand for one; probability [n, K].

        >>> Amounts(np.zeros(1), np.array([5.0, 30.0, np.nan])).predicted(np.array([[0.1, 0.2, 0.7]]))
        array([30.])
        """
        amount: np.ndarray = self.of_bin[np.where(np.isnan(self.of_bin), -1, probability).argmax(1)]
        return amount


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    `truth` [n] of 0, 1 or NaN (left out), `score` [n]. NaN if only one class is there; ValueError for a NaN
    score.

    >>> auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    truth, score = known(truth, score)
    positives, negatives = truth.sum(), (~truth).sum()
    if not positives or not negatives:
        return math.nan
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    rank_sum = middle[place][truth].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(truth: np.ndarray, score: np.ndarray) -> float:
    """Average precision: precision at each distinct score, weighted by the recall gained there.

    `truth` [n] of 0, 1 or NaN (left out), `score` [n]. NaN if only one class is there; ValueError for a NaN
    score.

    >>> round(auprc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])), 6)
    0.833333
    """
    truth, score = known(truth, score)
    if truth.all() or not truth.any():
        return math.nan
    order = np.argsort(-score, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(score[order])), len(score) - 1]
    hits = np.cumsum(truth[order])[last]
    gained = np.diff(hits, prepend=0) / truth.sum()
    return float(gained @ (hits / (last + 1)))


def brier(truth: np.ndarray, probability: np.ndarray) -> float:
    """Mean squared error of probabilities [n] against 0, 1 or NaN (left out); NaN if nothing is known."""
    truth, probability = known(truth, probability)
    return float(np.mean((probability - truth) ** 2)) if len(truth) else math.nan


def calibration_error(truth: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error: |mean probability - share of positives|, weighted over ten equal bins."""
    truth, probability = known(truth, probability)
    if not len(truth):
        return math.nan
    gap = np.bincount(calibration_bin(probability), probability - truth, CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(truth))


def calibration_bin(probability: np.ndarray) -> np.ndarray:
    """In which of ten equal bins, closed on the left and the last on both sides, a probability lies."""
    place: np.ndarray = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return place


def kappa(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Cohen's kappa with linear weights between bins 0 .. classes - 1; both [n], NaN truth left out.

    NaN if nothing is known, or if all truth and predictions are one and the same bin.

    >>> kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), 3)
    1.0
    """
    truth, predicted = _pairs(truth, predicted)
    table = np.zeros((classes, classes))
    np.add.at(table, (truth.astype(int), predicted.astype(int)), 1)
    return float(kappa_of_tables(table))


def kappa_of_tables(tables: np.ndarray) -> np.ndarray:
    """Kappa with linear weights of tables [..., K, K], counts of each true (row) and predicted bin -> [...].

    NaN for a table without a disagreement that chance could make.
    """
    classes = np.arange(tables.shape[-1])
    distance = np.abs(np.subtract.outer(classes, classes))
    chance = np.einsum("...i,ij,...j->...", tables.sum(-1), distance, tables.sum(-2))
    observed = (distance * tables).sum((-2, -1)) * tables.sum((-2, -1))
    ratio: np.ndarray = np.divide(observed, chance, out=np.full(np.shape(chance), np.nan), where=chance != 0)
    return 1 - ratio


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal bins, both [n], NaN truth left out; NaN if nothing is known."""
    truth, predicted = _pairs(truth, predicted)
    return float(np.mean(truth == predicted)) if len(truth) else math.nan


def errors(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Each sample's part of MAD (absolute), MSE (squared) and MAPE (per cent of the truth), [n] each.

    >>> {name: float(error[0]) for name, error in errors(np.array([19.9]), np.array([29.9])).items()}
    {'mad': 10.0, 'mse': 100.0, 'mape': 50.0}
    """
    gap = np.abs(truth - predicted)
    return {"mad": gap, "mse": gap**2, "mape": 100 * gap / (truth + MAPE_OFFSET)}


def evaluate(
    kind: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    truth: np.ndarray,
    probability: np.ndarray,
    amounts: Amounts | None = None,
) -> list[Score]:
    """All scores of one split: per label, then the mean ("macro") over labels, then per group of labels.

    `kind` "binary" or "multilabel": truth and probability [n, L]; auroc, auprc, brier, ece. `kind` "ordinal":
    truth [n, 1] bins, probability [n, K]; kappa, accuracy, and with `amounts` mad, mse and mape of those;
    "macro" repeats its one label, and there are no groups. A label with one class has value NaN, and is left
    out of the means (see `left_out`). ValueError for another kind, or for shapes that do not fit.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, not {kind!r}")
    width = (len(labels), probability.shape[1] if kind == "ordinal" else len(labels))
    if truth.shape != (len(probability), width[0]) or probability.shape[1] != width[1]:
        raise ValueError(
            f"truth {truth.shape} and probability {probability.shape} do not fit {width} columns"
        )
    scores = _KINDS[kind](labels, truth, probability)
    if amounts is not None:
        scores += _score_amounts(labels[0], amounts, probability)
    if kind == "ordinal":
        return scores + [Score(**score | {"label": "macro"}) for score in scores]
    for name, members in {"macro": labels, **groups}.items():
        scores += _means(name, [score for score in scores if score["label"] in members])
    return scores


def headline(scores: Sequence[Score]) -> dict[str, float]:
    """{metric: macro value}, for logs and for choosing an epoch."""
    return {score["metric"]: score["value"] for score in scores if score["label"] == "macro"}


def left_out(scores: Sequence[Score]) -> list[str]:
    """Names of the labels without a value, such as those with one class, which no mean contains."""
    return list(dict.fromkeys(score["label"] for score in scores if math.isnan(score["value"])))


def known(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth as bool and scores as float64 where truth [n] is known; ValueError for what is no label or no
    score.
    """
    truth, score = _pairs(truth, score)
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"labels must be 0, 1 or NaN, not {np.setdiff1d(truth, (0, 1))[:3]}")
    return truth == 1, score.astype(np.float64)


def _pairs(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, score = np.asarray(truth), np.asarray(score)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise ValueError(f"truth {truth.shape} and score {score.shape} must both be [n]")
    if np.isnan(score).any():
        raise ValueError(f"{np.isnan(score).sum()} of {len(score)} scores are NaN; the model has diverged")
    known = ~np.isnan(truth)
    return truth[known], score[known]


_BINARY = {"auroc": auroc, "auprc": auprc, "brier": brier, "ece": calibration_error}


def _score_binary(labels: Sequence[str], truth: np.ndarray, probability: np.ndarray) -> list[Score]:
    scores = []
    for label, known, guess in zip(labels, truth.T, probability.T, strict=True):
        n, positives = int((~np.isnan(known)).sum()), int(np.nansum(known))
        for metric, measure in _BINARY.items():
            scores.append(
                Score(label=label, metric=metric, value=measure(known, guess), n=n, positives=positives)
            )
    return scores


def _score_ordinal(labels: Sequence[str], truth: np.ndarray, probability: np.ndarray) -> list[Score]:
    known, guess = truth[:, 0], probability.argmax(1)
    n = int((~np.isnan(known)).sum())
    values = {"kappa": kappa(known, guess, probability.shape[1]), "accuracy": accuracy(known, guess)}
    return [
        Score(label=labels[0], metric=name, value=value, n=n, positives=0) for name, value in values.items()
    ]


def _score_amounts(label: str, amounts: Amounts, probability: np.ndarray) -> list[Score]:
    truth, predicted = _pairs(amounts.truth, amounts.predicted(probability))
    return [
        Score(label=label, metric=name, value=float(np.mean(error)), n=len(truth), positives=0)
        for name, error in errors(truth, predicted).items()
    ]


_KINDS = {"binary": _score_binary, "multilabel": _score_binary, "ordinal": _score_ordinal}


def _means(name: str, scores: Sequence[Score]) -> list[Score]:
    """Per metric, the mean over the labels that have both classes; n and positives are their sums."""
    undefined = {score["label"] for score in scores if math.isnan(score["value"])}
    kept = [score for score in scores if score["label"] not in undefined]
    means = []
    for metric in dict.fromkeys(score["metric"] for score in scores):
        part = [score for score in kept if score["metric"] == metric]
        value = float(np.mean([score["value"] for score in part])) if part else math.nan
        n, positives = (sum(score[key] for score in part) for key in ("n", "positives"))
        means.append(Score(label=name, metric=metric, value=value, n=n, positives=positives))
    return means
