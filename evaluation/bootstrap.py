"""Exact bootstrap over subjects: every score of every resample, from counts, without copies."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from evaluation import metrics
from evaluation.metrics import CALIBRATION_BINS, ContinuousTarget, Score, quotient
from utils.machine import available_cpus

BLOCK_SIZE = 32  # resamples whose counts are drawn at once
CACHE_ELEMENTS = 1 << 17  # largest size of a temporary array, so that a core's cache holds the few in use
TAIL_PERCENT = 2.5  # per cent of the resamples below, and above, an interval

Resampled = dict[tuple[str, str], np.ndarray]  # (label, metric) -> its value in each resample [R]


@dataclass(frozen=True, eq=False)
class Resamples:
    """`count` bootstrap resamples: each draws as many subjects as there are, with all samples of a subject.

    The draws depend on the seed, the resample's number and `subjects` alone, so that scores are paired.
    """

    subject: np.ndarray  # int64 [n], index (0 .. subjects - 1) of each sample's subject
    subjects: int
    count: int
    seed: int

    @classmethod
    def of(cls, subject: np.ndarray, count: int, seed: int) -> Self:
        """Return `count` resamples of the subjects of n samples; `subject` [n] holds ids of any type."""
        ids, index = np.unique(subject, return_inverse=True)
        return cls(index, len(ids), count, seed)

    def take(self, index: np.ndarray) -> Self:
        """Return the same draws for some of the samples, chosen by their indices or by a mask [n]."""
        return replace(self, subject=self.subject[index])

    def counts(self, resamples: range) -> np.ndarray:
        """Return how often each subject was drawn, [len(resamples), subjects], int32 or if need be int64."""
        most_samples = self.subjects * int(np.bincount(self.subject).max(initial=1))
        counts = np.empty((len(resamples), self.subjects), np.int32 if most_samples < 2**31 else np.int64)
        for row, number in zip(counts, resamples, strict=True):
            draws = np.random.default_rng((self.seed, number)).integers(self.subjects, size=self.subjects)
            row[:] = np.bincount(draws, minlength=self.subjects)
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
) -> Resampled:
    """Return the scores of `metrics.evaluate` in every resample: {(label, metric): [R]}.

    A mean is, in each resample, over the labels that have both classes there; NaN where no label has.
    """
    if kind == "ordinal":
        scores = _ordinal(truth[:, 0], probability, resamples)
        if continuous is not None:
            scores |= _continuous(probability, resamples, continuous)
        return {(label, name): value for label in (labels[0], "macro") for name, value in scores.items()}
    scores = _binary(truth, probability, resamples)
    defined = ~np.isnan(np.stack(list(scores.values()))).any(0)
    values = {(label, name): value[:, i] for name, value in scores.items() for i, label in enumerate(labels)}
    for group, members in {"macro": labels, **groups}.items():
        in_mean = defined & np.isin(labels, members)
        for name, value in scores.items():
            values[group, name] = quotient(np.where(in_mean, value, 0).sum(1), in_mean.sum(1))
    return values


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of a score's values [R], ignoring NaN; NaN if all are.

    >>> interval(np.array([np.nan, *range(101)]))
    (2.5, 97.5)
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.percentile(values, (TAIL_PERCENT, 100 - TAIL_PERCENT))
    return float(low), float(high)


def with_intervals(scores: Sequence[Score], resampled: Resampled) -> list[Score]:
    """Return the scores with low and high added where both the value and its interval are defined."""
    complete = []
    for score in scores:
        low, high = interval(resampled[score["label"], score["metric"]])
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


def _binary(truth: np.ndarray, probability: np.ndarray, resamples: Resamples) -> dict[str, np.ndarray]:
    """Return {metric: [R, L]}; Brier score and calibration error are sums over samples."""
    auroc, auprc = areas(resamples, truth, probability)
    labels = truth.shape[1]
    sample, label = np.nonzero(~np.isnan(truth))
    predicted = probability[sample, label].astype(np.float64)
    gap = predicted - truth[sample, label]
    bin_column = label * CALIBRATION_BINS + metrics.calibration_bin(predicted)

    n = totals(resamples, sample, label, np.ones(len(label)), labels)
    gaps = totals(resamples, sample, bin_column, gap, labels * CALIBRATION_BINS)
    gaps = np.abs(gaps.reshape(len(n), labels, CALIBRATION_BINS)).sum(2)
    brier = quotient(totals(resamples, sample, label, gap**2, labels), n)
    return {"auroc": auroc, "auprc": auprc, "brier": brier, "ece": quotient(gaps, n)}


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
