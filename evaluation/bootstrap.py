"""Exact bootstrap over subjects: every score of every resample, from counts, without copies."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import scipy  # whose parts are imported where they are first used

from evaluation import metrics
from evaluation.debias import sizes_in_resamples, sum_of_absolutes
from evaluation.metrics import CALIBRATION_BINS, ContinuousTarget, Score, quotient
from evaluation.names import metric_of
from utils.machine import available_cpus

BLOCK_SIZE = 32  # resamples whose counts are drawn at once
KEPT_COUNTS = 1 << 24  # largest number of counts that are kept, rather than drawn anew for each metric
CACHE_ELEMENTS = 1 << 17  # largest size of a temporary array, so that a core's cache holds the few in use
TAIL = 0.025  # of the distribution, below and above an interval
UNBOUNDED = (-np.inf, np.inf)

Resampled = dict[tuple[str, str], np.ndarray]  # (label, metric) -> its value in each resample [R]


class Subjects(NamedTuple):
    """How many subjects a score is of."""

    deciding: int  # with the rarer class in one of the labels, or the only class; all of an ordinal label
    known: int  # with a known label


class Interval(NamedTuple):
    """The ends of a 95 % interval, NaN if there is none."""

    low: float
    high: float


NO_INTERVAL = Interval(np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class Resamples:
    """`count` bootstrap resamples: each draws as many subjects as there are, with all samples of a subject.

    The draws depend on the seed, the resample's number and `subjects` alone, so that scores are paired.
    """

    subject: np.ndarray  # int64 [n], index (0 .. subjects - 1) of each sample's subject
    subjects: int
    count: int
    seed: int
    _drawn: dict[range, np.ndarray] = field(default_factory=dict, repr=False)  # what `counts` returned

    @classmethod
    def of(cls, subject: np.ndarray, count: int, seed: int) -> Self:
        """Return `count` resamples of the subjects of n samples; `subject` [n] holds ids of any type."""
        ids, index = np.unique(subject, return_inverse=True)
        return cls(index, len(ids), count, seed)

    def take(self, index: np.ndarray) -> Self:
        """Return the same draws for some of the samples, chosen by their indices or by a mask [n]."""
        return replace(self, subject=self.subject[index])

    def counts(self, resamples: range) -> np.ndarray:
        """Return how often each subject was drawn, [len(resamples), subjects], int32 or if need be int64.

        The array may be returned again, and so is not to be changed.
        """
        if resamples in self._drawn:
            return self._drawn[resamples]
        most_samples = self.subjects * int(np.bincount(self.subject).max(initial=1))
        counts = np.empty((len(resamples), self.subjects), np.int32 if most_samples < 2**31 else np.int64)
        for row, number in zip(counts, resamples, strict=True):
            draws = np.random.default_rng((self.seed, number)).integers(self.subjects, size=self.subjects)
            row[:] = np.bincount(draws, minlength=self.subjects)
        if self.count * self.subjects <= KEPT_COUNTS:
            counts.flags.writeable = False
            self._drawn[resamples] = counts
        return counts


@dataclass(frozen=True, eq=False)
class _RankedLabel:
    """The known samples of one label, sorted from the highest score to the lowest."""

    subject: np.ndarray  # [n], subject of each sample
    positive: np.ndarray  # [P], indices of the positives
    last: np.ndarray  # [P], for each positive the number of samples that score at least as high
    tied: np.ndarray  # [T], which positives share their score with another sample
    first: np.ndarray  # [T], for each of these the number of samples that score higher
    first_hit: np.ndarray  # [T], positives among those
    last_hit: np.ndarray  # [T], positives that score at least as high


def areas(
    resamples: Resamples, truth: np.ndarray, score: np.ndarray, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return AUROC and AUPRC (average precision) of every resample and label, each float64 [R, L].

    `truth` [n, L] of 0, 1 or NaN (ignored), `score` [n, L]. NaN where a resample has one class.
    """
    ranked = [_rank(resamples.subject, *column) for column in zip(truth.T, score.T, strict=True)]
    values = np.full((2, resamples.count, len(ranked)), np.nan)

    def score_block(block: range) -> None:
        counts = resamples.counts(block)
        for label, ranks in enumerate(ranked):
            step = max(1, CACHE_ELEMENTS // max(1, len(ranks.subject)))
            for start in range(0, len(block), step):
                rows = slice(block.start + start, min(block.start + start + step, block.stop))
                values[:, rows, label] = _areas_of(ranks, counts[start : start + step])

    threads = threads or available_cpus()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score_block, _blocks(resamples.count, threads)))
    return values[0], values[1]


def totals(
    resamples: Resamples, sample: np.ndarray, column: np.ndarray, value: np.ndarray, width: int
) -> np.ndarray:
    """Return float64 sums [R, width] of `value` [k] from `sample` [k] in `column` [k], in every resample."""
    cell = resamples.subject[sample] * width + column
    by_subject = np.bincount(cell, value, resamples.subjects * width).reshape(resamples.subjects, width)
    return np.concatenate([resamples.counts(block) @ by_subject for block in _blocks(resamples.count)])


def evaluate(
    kind: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    truth: np.ndarray,
    probability: np.ndarray,
    resamples: Resamples,
    continuous: ContinuousTarget | None = None,
    ranking: bool = True,
) -> Resampled:
    """Return the scores of `metrics.evaluate` in every resample, without ece_plugin: {(label, metric): [R]}.

    A mean is, in each resample, over the labels that have both classes there; NaN where no label has. `ece`
    is what `debias.sizes_in_resamples` returns. Without `ranking`, auroc and auprc, which take the longest,
    are left out.
    """
    if kind == "ordinal":
        scores = _ordinal(truth[:, 0], probability, resamples)
        if continuous is not None:
            scores |= _continuous(probability, resamples, continuous)
        return {(label, name): value for label in (labels[0], "macro") for name, value in scores.items()}
    members = {name: np.isin(labels, group) for name, group in {"macro": labels, **groups}.items()}
    scores = (
        dict(zip(("auroc", "auprc"), areas(resamples, truth, probability), strict=True)) if ranking else {}
    )
    calibration = _Calibration.of(truth, probability, resamples)
    scores["brier"] = calibration.brier
    values = {(label, name): value[:, i] for name, value in scores.items() for i, label in enumerate(labels)}
    for group, is_member in members.items():
        in_mean = calibration.defined & is_member
        for name, value in scores.items():
            values[group, name] = quotient(np.where(in_mean, value, 0).sum(1), in_mean.sum(1))
    has_both = ((truth == 0).any(0)) & ((truth == 1).any(0))
    for i, label in enumerate(labels):
        values[label, "ece"] = calibration.errors(np.arange(len(labels)) == i)
    for group, is_member in members.items():
        values[group, "ece"] = calibration.errors(is_member & has_both)
    return values


def subjects_of(
    kind: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    truth: np.ndarray,
    subject: np.ndarray,
) -> dict[str, Subjects]:
    """Return the numbers of subjects of every label and mean; `truth` [n, L], `subject` [n]."""
    if kind == "ordinal":
        known = len(np.unique(subject[~np.isnan(truth[:, 0])]))
        return {label: Subjects(known, known) for label in (labels[0], "macro")}
    of = {name: (name,) for name in labels} | {"macro": labels, **groups}
    return {name: _count(truth[:, np.isin(labels, members)], subject) for name, members in of.items()}


def interval(
    value: float, resampled: np.ndarray, subjects: int, bounds: tuple[float, float] = UNBOUNDED
) -> Interval:
    """Return the 95 % interval of a score from its values in resamples [R], ignoring NaN.

    It is Student's, with the standard error of the bootstrap and one degree of freedom less than the
    `subjects` that decide it. Between two bounds it is computed on the logit, above one on the logarithm, and
    never leaves them. A score that is on a bound in each resample has Wilson's interval. NaN for one subject.

    >>> [round(end, 3) for end in interval(0.9, np.array([0.88, 0.9, 0.92]), 50, (0, 1))]
    [0.862, 0.929]
    >>> [round(end, 3) for end in interval(1.0, np.ones(9), 50, (0, 1))]
    [0.924, 1]
    """
    resampled = resampled[~np.isnan(resampled)]
    if len(resampled) < 2 or subjects < 2 or np.isnan(value):
        return NO_INTERVAL
    (low, high), reach = bounds, _reach(subjects)
    half = reach * float(resampled.std())
    if half == 0 and value in bounds:
        inner = (high - low) * reach**2 / (subjects + reach**2)
        return Interval(low, low + inner) if value == low else Interval(high - inner, high)
    if half == 0 or not np.isfinite(low) or not low < value < high:
        return Interval(max(low, value - half), min(high, value + half))
    if np.isfinite(high):
        share = (value - low) / (high - low)
        steps = half / (share * (1 - share) * (high - low))  # the logit is so much steeper
        logits = scipy.special.logit(share) + np.array([-steps, steps])
        ends = low + (high - low) * scipy.special.expit(logits)
    else:
        ends = low + (value - low) * np.exp(np.array([-half, half]) / (value - low))
    return Interval(float(ends[0]), float(ends[1]))


def p_value(difference: float, resampled: np.ndarray, subjects: int) -> float:
    """Return the two-sided p value of the hypothesis that a difference is 0, ignoring NaN.

    It is below 0.05 where `interval` does not contain 0. 1 if nothing differs in any resample, NaN if there
    is no interval.

    >>> drawn = np.array([0.0, 0.1, 0.2])
    >>> round(p_value(0.1, drawn, 20), 3), p_value(0.0, np.zeros(3), 20)
    (0.247, 1.0)
    """
    resampled = resampled[~np.isnan(resampled)]
    if len(resampled) < 2 or subjects < 2 or np.isnan(difference):
        return np.nan
    error = float(resampled.std()) * np.sqrt(subjects / (subjects - 1))
    if error == 0:
        return float(difference == 0)
    return float(2 * scipy.special.stdtr(subjects - 1, -abs(difference) / error))


def percentile_interval(values: np.ndarray, subjects: int | None = None, fitted: int = 0) -> Interval:
    """Return the 95 % percentile interval of values [R], ignoring NaN; NaN if all are.

    With `subjects` it is wider, as Student's t is (the expanded percentile interval of Hesterberg 2015), and
    again where `fitted` numbers were estimated from these subjects.

    >>> percentile_interval(np.array([np.nan, *range(101)]))
    Interval(low=2.5, high=97.5)
    """
    values = values[~np.isnan(values)]
    tail = TAIL
    if subjects is not None:
        wider = np.sqrt(subjects / max(subjects - fitted, subjects / 4))
        tail = float(scipy.special.ndtr(-_reach(subjects) * wider))
    return Interval(*map(float, np.quantile(values, (tail, 1 - tail)))) if len(values) else NO_INTERVAL


def score_interval(metric: str, value: float, resampled: np.ndarray, subjects: Subjects) -> Interval:
    """Return the interval of a score by its name; that of `ece` and of gaps is of percentiles.

    The calibration error has two fitted numbers in each bin, the gap and its deviation.
    """
    if subjects.deciding < 2:
        return NO_INTERVAL
    if metric.endswith("_gap"):
        low, high = percentile_interval(resampled, subjects.deciding)
        high = min(high, metric_of(metric).high)  # a spread without its noise may be larger
    elif metric.startswith("ece"):
        low, high = percentile_interval(resampled, subjects.known, 2 * CALIBRATION_BINS)
    else:
        return interval(value, resampled, subjects.deciding, metric_of(metric)[1:3])
    return Interval(min(low, value), max(high, value))


def with_intervals(
    scores: Sequence[Score], resampled: Resampled, subjects: Mapping[str, Subjects]
) -> list[Score]:
    """Return the scores with low and high added where both the value and its interval are defined.

    `subjects` are those of `subjects_of`, by label.
    """
    complete = []
    for score in scores:
        values = resampled.get((score["label"], score["metric"]))
        low, high = NO_INTERVAL
        if values is not None:
            low, high = score_interval(score["metric"], score["value"], values, subjects[score["label"]])
        defined = not np.isnan(score["value"] + low)
        complete.append(Score(**score, low=low, high=high) if defined else Score(**score))
    return complete


def undefined(resampled: Resampled) -> dict[str, int]:
    """Return {label: number of resamples without a value, which its interval ignores}, if there are any."""
    counts: dict[str, int] = {}
    for (label, _), values in resampled.items():
        counts[label] = max(counts.get(label, 0), int(np.isnan(values).sum()))
    return {label: count for label, count in counts.items() if count}


def _blocks(count: int, threads: int = 1) -> Iterator[range]:
    """Split the resamples into blocks, at least one per thread."""
    step = max(1, min(BLOCK_SIZE, -(-count // threads)))
    return (range(start, min(start + step, count)) for start in range(0, count, step))


def _rank(subject: np.ndarray, truth: np.ndarray, score: np.ndarray) -> _RankedLabel:
    is_positive, value = metrics.known(truth, score)
    order = np.argsort(-value, kind="stable")
    is_positive, value = is_positive[order], value[order]
    edges = np.append(np.flatnonzero(np.diff(value, prepend=np.nan) != 0), len(value))
    positive = np.flatnonzero(is_positive)
    tie_group = np.searchsorted(edges, positive, side="right") - 1
    first, last = edges[tie_group], edges[tie_group + 1]
    tied = np.flatnonzero(last - first > 1)
    hits = np.concatenate([[0], np.cumsum(is_positive)])
    return _RankedLabel(
        subject=subject[~np.isnan(truth)][order],
        positive=positive,
        last=last,
        tied=tied,
        first=first[tied],
        first_hit=hits[first[tied]],
        last_hit=hits[last[tied]],
    )


def _areas_of(ranks: _RankedLabel, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return AUROC and AUPRC [B] of B resamples; all sums are of integers and therefore exact."""
    weight = np.take(counts, ranks.subject, axis=1, mode="clip")
    positive_weight = np.take(weight, ranks.positive, axis=1, mode="clip")
    seen, hits = _running_sums(weight), _running_sums(positive_weight)
    positives = hits[:, -1].astype(np.float64)
    negatives = (seen[:, -1] - hits[:, -1]).astype(np.float64)
    last = np.take(seen, ranks.last, axis=1, mode="clip").astype(np.float64)
    last_hit = hits[:, 1:].astype(np.float64)
    above = last - last_hit  # negatives that score higher than the positive; ties count half
    if len(ranks.tied):
        last_hit[:, ranks.tied] = np.take(hits, ranks.last_hit, axis=1)
        first = np.take(seen, ranks.first, axis=1) - np.take(hits, ranks.first_hit, axis=1)
        above[:, ranks.tied] = (first + last[:, ranks.tied] - last_hit[:, ranks.tied]) / 2
    positive_weight = positive_weight.astype(np.float64)
    pairs = positives * negatives
    wrong_pairs = np.einsum("bp,bp->b", positive_weight, above)
    precision_sum = np.einsum("bp,bp->b", positive_weight, last_hit / np.maximum(last, 1))
    return quotient(pairs - wrong_pairs, pairs), quotient(precision_sum, np.where(pairs > 0, positives, 0))


def _running_sums(counts: np.ndarray) -> np.ndarray:
    """[B, n] -> [B, n + 1]: sums of the first 0, 1, ... n counts."""
    sums = np.zeros((len(counts), counts.shape[1] + 1), counts.dtype)
    np.cumsum(counts, axis=1, out=sums[:, 1:])
    return sums


def _count(truth: np.ndarray, subject: np.ndarray) -> Subjects:
    counts = [len(np.unique(subject[(truth == value).any(axis=1)])) for value in (0, 1)]
    known = len(np.unique(subject[~np.isnan(truth).all(axis=1)]))
    return Subjects(min(counts) or max(counts), known)


@dataclass(frozen=True, eq=False)
class _Calibration:
    """What the Brier score and the calibration error of L labels and R resamples are made of."""

    brier: np.ndarray  # [R, L]
    defined: np.ndarray  # [R, L], whether there are both classes
    observed: np.ndarray  # [L, K], gaps of the bins in the samples
    gaps: np.ndarray  # [R, L, K], in the resamples

    @classmethod
    def of(cls, truth: np.ndarray, probability: np.ndarray, resamples: Resamples) -> Self:
        """Add up over samples; `truth` and `probability` [n, L]."""
        labels, bins = truth.shape[1], CALIBRATION_BINS
        sample, label = np.nonzero(~np.isnan(truth))
        predicted, is_positive = probability[sample, label].astype(np.float64), truth[sample, label]
        gap = predicted - is_positive
        # Each label has a column of its samples, positives and squared gaps, and then one for each bin.
        columns = [label, labels + label, 2 * labels + label]
        columns.append(3 * labels + label * bins + metrics.calibration_bin(predicted))
        values = np.concatenate([np.ones(len(label)), is_positive, gap**2, gap])
        width = labels * (3 + bins)
        sums = totals(resamples, np.tile(sample, 4), np.concatenate(columns), values, width)
        n, positives, squares = (sums[:, i * labels : (i + 1) * labels] for i in range(3))
        gaps = sums[:, 3 * labels :].reshape(-1, labels, bins)
        known = np.bincount(label, minlength=labels)[:, None]
        observed = np.bincount(columns[3] - 3 * labels, gap, labels * bins).reshape(labels, bins)
        return cls(
            brier=quotient(squares, n),
            defined=(positives > 0) & (positives < n),
            observed=quotient(observed, np.broadcast_to(known, observed.shape)),
            gaps=quotient(gaps, np.broadcast_to(n[..., None], gaps.shape)),
        )

    def errors(self, members: np.ndarray) -> np.ndarray:
        """Return the calibration error [R] of the mean of some labels, NaN if it is not defined."""
        count = int(members.sum())
        if not count or np.isnan(self.observed[members]).any():
            return np.full(len(self.gaps), np.nan)
        observed = self.observed[members].ravel() / count
        resampled = self.gaps[:, members].reshape(len(self.gaps), -1) / count
        return sizes_in_resamples(observed, resampled, sum_of_absolutes)


def _reach(subjects: int) -> float:
    """Return how many standard errors of a bootstrap the ends of an interval are away from the score.

    Student's t replaces the normal distribution, and the variance over n subjects is (n - 1) / n of the true.

    >>> round(_reach(1000), 2), round(_reach(5), 2)
    (1.96, 3.1)
    """
    subjects = max(2, subjects)
    return float(scipy.special.stdtrit(subjects - 1, 1 - TAIL) * np.sqrt(subjects / (subjects - 1)))


def _ordinal(truth: np.ndarray, probability: np.ndarray, resamples: Resamples) -> dict[str, np.ndarray]:
    """Return {metric: [R]}, from the confusion matrix of every resample."""
    classes, sample = probability.shape[1], np.flatnonzero(~np.isnan(truth))
    cell = truth[sample].astype(int) * classes + probability.argmax(1)[sample]
    tables = totals(resamples, sample, cell, np.ones(len(sample)), classes**2)
    tables = tables.reshape(-1, classes, classes)
    correct = np.trace(tables, axis1=1, axis2=2)
    return {"kappa": metrics.kappa_of_tables(tables), "accuracy": quotient(correct, tables.sum((1, 2)))}


def _continuous(
    probability: np.ndarray, resamples: Resamples, continuous: ContinuousTarget
) -> dict[str, np.ndarray]:
    """Return {metric: [R]} of the errors in the label's own unit."""
    sample = np.flatnonzero(~np.isnan(continuous.truth))
    errors = metrics.errors(continuous.truth[sample], continuous.predicted(probability[sample]))
    one_column = np.zeros(len(sample), np.int64)
    n = totals(resamples, sample, one_column, np.ones(len(sample)), 1)[:, 0]
    sums = {name: totals(resamples, sample, one_column, error, 1)[:, 0] for name, error in errors.items()}
    return {name: quotient(total, n) for name, total in sums.items()}
