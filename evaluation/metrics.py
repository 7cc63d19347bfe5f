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


class Areas(NamedTuple):
    """Areas under the curves of each label [L], NaN for one with one class: ROC, and average precision."""

    auroc: np.ndarray
    auprc: np.ndarray


def areas(truth: np.ndarray, score: np.ndarray) -> Areas:
    """Return the areas of `truth` [n, L], 0, 1 or NaN, and `score` [n, L], of all labels at once.

    Both curves have a point for each distinct score, so that ties count half in the AUROC.
    """
    _check_pairs(truth, score)
    truth, score = truth.T, score.T.astype(np.float64, order="C")  # rows of numbers are sorted sooner
    score = np.where(np.isnan(truth), np.inf, -score)  # the unknown add to no curve
    order = np.argsort(score, axis=1, kind="stable")
    score, truth = (np.take_along_axis(cells, order, 1) for cells in (score, truth))
    is_point = np.ones(score.shape, bool)
    is_point[:, :-1] = score[:, 1:] != score[:, :-1]
    hits, hits_before = _at_points(truth == 1, is_point)
    alarms, alarms_before = _at_points(truth == 0, is_point)
    positives, negatives = hits.max(1, initial=0), alarms.max(1, initial=0)
    pairs = ((alarms - alarms_before) * (hits + hits_before) / 2).sum(1)
    precision = np.divide(hits, hits + alarms, out=np.zeros(hits.shape), where=hits > 0)
    gained = ((hits - hits_before) * precision).sum(1)
    return Areas(
        quotient(pairs, positives * negatives), quotient(gained, np.where(negatives > 0, positives, 0))
    )


def _at_points(chosen: np.ndarray, is_point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of [L, n] are chosen up to each point of a curve, and up to the point before it."""
    count = np.maximum.accumulate(np.where(is_point, chosen.cumsum(1), 0), axis=1)
    before = np.zeros_like(count)
    before[:, 1:] = count[:, :-1]
    return count, before


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve of `truth` [n], 0, 1 or NaN, and `score` [n]; ties count half."""
    return float(areas(*_as_columns(truth, score)).auroc[0])


def auprc(truth: np.ndarray, score: np.ndarray) -> float:
    """Return the average precision of `truth` [n], 0, 1 or NaN, and `score` [n], over distinct scores."""
    return float(areas(*_as_columns(truth, score)).auprc[0])


def brier(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean squared error of probabilities [n] against 0, 1 or NaN (ignored)."""
    return float(_brier(*_as_columns(truth, probability))[0])


def _brier(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the Brier score of each label [L], NaN where none is known; both [n, L]."""
    is_known = ~np.isnan(truth)
    squares = np.where(is_known, np.square(probability.astype(np.float64) - truth), 0)
    return quotient(squares.sum(0), is_known.sum(0))


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
    return _gaps(*_as_columns(truth, probability), subject)[0]


def _gaps(
    truth: np.ndarray, probability: np.ndarray, subject: np.ndarray | None = None
) -> list[BinGaps | None]:
    """Return the `calibration_gaps` of each label of truth and probability, both [n, L]."""
    subject = np.arange(len(truth)) if subject is None else np.unique(subject, return_inverse=True)[1]
    probability = probability.astype(np.float64)  # before bins are found, as a file of predictions holds it
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
    gaps = dict(zip(labels, _gaps(truth, probability, subject), strict=True))
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
    values = _binary_values(truth, probability)
    is_defined = ~np.isnan(values["auroc"])
    if not is_defined.any():
        return dict.fromkeys([*values, "ece"], math.nan)
    of_labels = _gaps(truth[:, is_defined], probability[:, is_defined], subject)
    gaps = [gap for gap in of_labels if gap is not None]
    means = {name: float(np.mean(column[is_defined])) for name, column in values.items()}
    return means | {"ece": mean_gaps(gaps).error}


def _binary_values(truth: np.ndarray, probability: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of each label [L] but those of calibration; truth and probability are [n, L]."""
    return {**areas(truth, probability)._asdict(), "brier": _brier(truth, probability)}


def undefined_labels(scores: Sequence[Score]) -> list[str]:
    """Return the labels without a value, such as those with one class, which no mean contains."""
    return list(dict.fromkeys(score["label"] for score in scores if math.isnan(score["value"])))


def known(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth as bool and scores as float64, both only where truth [n] is known."""
    truth, score = (column[:, 0] for column in _as_columns(truth, score))
    _check_pairs(truth, score)
    is_known = ~np.isnan(truth)
    return truth[is_known] == 1, score[is_known].astype(np.float64)


def _as_columns(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and score, both [n], as the columns of one label [n, 1]."""
    truth, score = np.asarray(truth), np.asarray(score)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise ValueError(f"truth {truth.shape} and score {score.shape} must both be [n]")
    return truth[:, None], score[:, None]


def _check_pairs(truth: np.ndarray, score: np.ndarray) -> None:
    """Raise ValueError unless all labels are 0, 1 or NaN, and all scores numbers."""
    _check_scores(score)
    if not ((truth == 0) | (truth == 1) | np.isnan(truth)).all():
        raise ValueError(f"labels must be 0, 1 or NaN, not {np.setdiff1d(truth, (0, 1, np.nan))[:3]}")


def _check_scores(score: np.ndarray) -> None:
    if np.isnan(score).any():
        raise ValueError(f"{np.isnan(score).sum()} of {score.size} scores are NaN; the model has diverged")


def _known_pairs(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, score = (column[:, 0] for column in _as_columns(truth, score))
    _check_scores(score)
    is_known = ~np.isnan(truth)
    return truth[is_known], score[is_known]


KINDS = ("binary", "multilabel", "ordinal")  # of tasks


def _score_binary(
    labels: Sequence[str], truth: np.ndarray, probability: np.ndarray, gaps: Mapping[str, BinGaps | None]
) -> list[Score]:
    scores = []
    of_labels = _binary_values(truth, probability)
    for number, (label, column) in enumerate(zip(labels, truth.T, strict=True)):
        n, positives, own = int((~np.isnan(column)).sum()), int(np.nansum(column)), gaps[label]
        values = {metric: float(found[number]) for metric, found in of_labels.items()}
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
