"""Classification metrics. Ties are exact; unknown labels (NaN) are ignored; a label with one class is NaN."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from evaluation.debias import BinGaps, bin_gaps, mean_gaps

CALIBRATION_BINS = 10
MAPE_OFFSET = 0.1  # added to the true value that MAPE divides by, as in the published benchmark


class Score(TypedDict):
    """One metric of one label."""

    label: str
    metric: str
    value: float
    n: int  # known labels
    positives: int  # how many of them are 1; 0 for an ordinal label
    low: NotRequired[float]  # end of the 95 % interval, if there is one
    high: NotRequired[float]


class ContinuousTarget(NamedTuple):
    """The continuous target behind an ordinal label, in the label's own unit."""

    truth: np.ndarray  # [n], NaN if unknown
    bin_means: np.ndarray  # [K], mean value of each bin, NaN for one without samples

    def predicted(self, probability: np.ndarray) -> np.ndarray:
        """Return the mean [n] of the most likely bin that has one; probability [n, K].

        >>> target = ContinuousTarget(np.zeros(1), np.array([5.0, 30.0, np.nan]))
        >>> target.predicted(np.array([[0.1, 0.2, 0.7]]))
        array([30.])
        """
        likeliest = np.where(np.isnan(self.bin_means), -1, probability).argmax(1)
        return np.asarray(self.bin_means[likeliest])


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve of `truth` [n], 0, 1 or NaN, and `score` [n]; ties count half."""
    truth, score = known(truth, score)
    positives, negatives = truth.sum(), (~truth).sum()
    if not positives or not negatives:
        return math.nan
    _, group, count = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    rank_sum = mean_rank[group][truth].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(truth: np.ndarray, score: np.ndarray) -> float:
    """Return the average precision of `truth` [n], 0, 1 or NaN, and `score` [n], over distinct scores."""
    truth, score = known(truth, score)
    if truth.all() or not truth.any():
        return math.nan
    order = np.argsort(-score, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(score[order])), len(score) - 1]
    hits = np.cumsum(truth[order])[last]
    recall_gain = np.diff(hits, prepend=0) / truth.sum()
    return float(recall_gain @ (hits / (last + 1)))


def brier(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean squared error of probabilities [n] against 0, 1 or NaN (ignored)."""
    truth, probability = known(truth, probability)
    return float(np.mean((probability - truth) ** 2)) if len(truth) else math.nan


def calibration_error(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean over ten equal bins, weighted by samples, of |probability - fraction of positives|.

    This is the plug-in, which noise makes too large; `calibration_gaps` has the error without this bias.
    """
    gaps = calibration_gaps(truth, probability)
    return math.nan if gaps is None else gaps.plugin


def calibration_gaps(
    truth: np.ndarray, probability: np.ndarray, subject: np.ndarray | None = None
) -> BinGaps | None:
    """Return the gaps in ten equal bins, None if no truth [n] is known.

    `subject` [n] holds the index of each sample's subject; by default each sample is of its own.
    """
    subject = np.arange(len(truth)) if subject is None else subject
    subject = np.unique(subject[~np.isnan(truth)], return_inverse=True)[1]
    truth, probability = known(truth, probability)
    if not len(truth):
        return None
    return bin_gaps(probability - truth, calibration_bin(probability), CALIBRATION_BINS, subject)


def calibration_bin(probability: np.ndarray) -> np.ndarray:
    """Return which of ten equal bins each probability lies in: [0, 0.1), [0.1, 0.2), ... [0.9, 1]."""
    return np.asarray(np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1))


def kappa(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Return Cohen's kappa with linear weights between bins 0 .. classes - 1; both [n], NaN truth ignored.

    NaN if nothing is known, or if all truth and predictions are one and the same bin.
    """
    truth, predicted = _known_pairs(truth, predicted)
    table = np.zeros((classes, classes))
    np.add.at(table, (truth.astype(int), predicted.astype(int)), 1)
    return float(kappa_of_tables(table))


def kappa_of_tables(tables: np.ndarray) -> np.ndarray:
    """Return linearly weighted kappa [...] of confusion matrices [..., K, K] (true bin, predicted bin).

    NaN for a matrix in which chance cannot disagree.
    """
    classes = np.arange(tables.shape[-1])
    distance = np.abs(np.subtract.outer(classes, classes))
    chance = np.einsum("...i,ij,...j->...", tables.sum(-1), distance, tables.sum(-2))
    observed = (distance * tables).sum((-2, -1)) * tables.sum((-2, -1))
    return 1 - quotient(observed, chance)


def quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide elementwise; NaN where the denominator is 0."""
    nan = np.full(np.shape(numerator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=nan, where=denominator != 0))


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the fraction of equal bins, both [n], NaN truth ignored; NaN if nothing is known."""
    truth, predicted = _known_pairs(truth, predicted)
    return float(np.mean(truth == predicted)) if len(truth) else math.nan


def errors(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Return each sample's term [n] of MAD (absolute), MSE (squared) and MAPE (per cent of the truth)."""
    gap = np.abs(truth - predicted)
    return {"mad": gap, "mse": gap**2, "mape": 100 * gap / (truth + MAPE_OFFSET)}


def evaluate(
    kind: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    truth: np.ndarray,
    probability: np.ndarray,
    continuous: ContinuousTarget | None = None,
    subject: np.ndarray | None = None,
) -> list[Score]:
    """Return all scores of one split: per label, then the mean over labels ("macro"), then per group.

    A label with one class has the value NaN and is excluded from the means (see `undefined_labels`).
    `kind` is "binary" or "multilabel" (auroc, auprc, brier, ece, ece_plugin; `truth` [n, L] of 0, 1 or NaN,
    `probability` [n, L]) or "ordinal" (kappa, accuracy; bins or NaN [n, 1], `probability` [n, K]; one label,
    which "macro" repeats, and no groups). `continuous`, of an ordinal label, adds mad, mse and mape.

    `ece` is the calibration error without the bias of noise, which depends on the `subject` [n] of each
    sample (default: its own); that of a mean is of all its labels together, as each alone is at least 0.

    Raises:
        ValueError: another kind, or shapes that do not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    width = (len(labels), probability.shape[1] if kind == "ordinal" else len(labels))
    if truth.shape != (len(probability), width[0]) or probability.shape[1] != width[1]:
        shapes = f"truth {truth.shape} and probability {probability.shape}"
        raise ValueError(f"{shapes} do not fit {width} columns")
    if kind == "ordinal":
        scores = _score_ordinal(labels, truth, probability)
        if continuous is not None:
            scores += _score_continuous(labels[0], continuous, probability)
        return scores + [Score(**score | {"label": "macro"}) for score in scores]
    columns = zip(labels, truth.T, probability.T, strict=True)
    gaps = {label: calibration_gaps(column, predicted, subject) for label, column, predicted in columns}
    scores = _score_binary(labels, truth, probability, gaps)
    for name, members in {"macro": labels, **groups}.items():
        scores += _means(name, [score for score in scores if score["label"] in members], gaps)
    return scores


def headline(scores: Sequence[Score]) -> dict[str, float]:
    """Return {metric: macro value} without the plug-in error, for logs and for choosing an epoch."""
    macro = (score for score in scores if score["label"] == "macro" and score["metric"] != "ece_plugin")
    return {score["metric"]: score["value"] for score in macro}


def headline_of(
    kind: str,
    labels: Sequence[str],
    truth: np.ndarray,
    probability: np.ndarray,
    subject: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the `headline` of what `evaluate` returns, in a fraction of the time if there are many labels.

    Most of the time goes into the calibration error of each label and group, of which no mean is made.
    """
    if kind == "ordinal":
        return headline(evaluate(kind, labels, {}, truth, probability))
    values: dict[str, list[float]] = {"auroc": [], "auprc": [], "brier": []}
    gaps = []
    for pair in zip(truth.T, probability.T, strict=True):
        area, own = auroc(*pair), calibration_gaps(*pair, subject)
        if own is None or math.isnan(area):
            continue
        for name, value in {"auroc": area, "auprc": auprc(*pair), "brier": brier(*pair)}.items():
            values[name].append(value)
        gaps.append(own)
    if not gaps:
        return dict.fromkeys([*values, "ece"], math.nan)
    means = {name: float(np.mean(column)) for name, column in values.items()}
    return means | {"ece": mean_gaps(gaps).error}


def undefined_labels(scores: Sequence[Score]) -> list[str]:
    """Return the labels without a value, such as those with one class, which no mean contains."""
    return list(dict.fromkeys(score["label"] for score in scores if math.isnan(score["value"])))


def known(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth as bool and scores as float64, both only where truth [n] is known."""
    truth, score = _known_pairs(truth, score)
    if not ((truth == 0) | (truth == 1)).all():
        raise ValueError(f"labels must be 0, 1 or NaN, not {np.setdiff1d(truth, (0, 1))[:3]}")
    return truth == 1, score.astype(np.float64)


def _known_pairs(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, score = np.asarray(truth), np.asarray(score)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise ValueError(f"truth {truth.shape} and score {score.shape} must both be [n]")
    if np.isnan(score).any():
        raise ValueError(f"{np.isnan(score).sum()} of {len(score)} scores are NaN; the model has diverged")
    is_known = ~np.isnan(truth)
    return truth[is_known], score[is_known]


KINDS = ("binary", "multilabel", "ordinal")  # of tasks


def _score_binary(
    labels: Sequence[str], truth: np.ndarray, probability: np.ndarray, gaps: Mapping[str, BinGaps | None]
) -> list[Score]:
    scores = []
    for label, column, predicted in zip(labels, truth.T, probability.T, strict=True):
        n, positives, own = int((~np.isnan(column)).sum()), int(np.nansum(column)), gaps[label]
        values = {metric.__name__: metric(column, predicted) for metric in (auroc, auprc, brier)}
        values |= {"ece": math.nan if own is None else own.error}
        values |= {"ece_plugin": math.nan if own is None else own.plugin}
        scores += [
            Score(label=label, metric=name, value=value, n=n, positives=positives)
            for name, value in values.items()
        ]
    return scores


def _score_ordinal(labels: Sequence[str], truth: np.ndarray, probability: np.ndarray) -> list[Score]:
    bins, predicted = truth[:, 0], probability.argmax(1)
    n = int((~np.isnan(bins)).sum())
    values = {"kappa": kappa(bins, predicted, probability.shape[1]), "accuracy": accuracy(bins, predicted)}
    return [Score(label=labels[0], metric=name, value=v, n=n, positives=0) for name, v in values.items()]


def _score_continuous(label: str, continuous: ContinuousTarget, probability: np.ndarray) -> list[Score]:
    truth, predicted = _known_pairs(continuous.truth, continuous.predicted(probability))
    return [
        Score(label=label, metric=name, value=float(np.mean(error)), n=len(truth), positives=0)
        for name, error in errors(truth, predicted).items()
    ]


def _means(name: str, scores: Sequence[Score], gaps: Mapping[str, BinGaps | None]) -> list[Score]:
    """Return each metric's mean over the labels that have both classes; n and positives are their sums."""
    undefined = undefined_labels(scores)
    defined = [score for score in scores if score["label"] not in undefined]
    pooled = [
        part for label in dict.fromkeys(s["label"] for s in defined) if (part := gaps[label]) is not None
    ]
    means = []
    for metric in dict.fromkeys(score["metric"] for score in scores):
        terms = [score for score in defined if score["metric"] == metric]
        value = float(np.mean([score["value"] for score in terms])) if terms else math.nan
        if metric == "ece" and terms:
            value = mean_gaps(pooled).error
        n, positives = (sum(score[key] for score in terms) for key in ("n", "positives"))
        means.append(Score(label=name, metric=metric, value=value, n=n, positives=positives))
    return means
