"""Exact bootstrap over subjects: every score of every resample, from counts and without copying a sample."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from evaluation import metrics
from evaluation.metrics import CALIBRATION_BINS, Amounts, Score

BLOCK = 32  # resamples whose counts are drawn at once
CACHE = 1 << 17  # numbers of one work array, so that the few of them stay in a core's cache
OUTSIDE = 2.5  # per cent of the resamples on either side of an interval

Resampled = dict[tuple[str, str], np.ndarray]  # (label, metric) -> its value in each resample [R]


@dataclass(frozen=True, eq=False)
class Resamples:
    """`count` draws of as many subjects as there are, with replacement; a subject's samples come together.

    subject: int64 [n], which of the `subjects` (0, 1, ...) each sample is of. The draws are a function of
    (seed, number of the resample, subjects) alone, so that all that is computed from them is paired.
    """

    subject: np.ndarray
    subjects: int
    count: int
    seed: int

    @classmethod
    def of(cls, subject: np.ndarray, count: int, seed: int) -> Self:
        """Resamples of the subjects of n samples, named in any way; `subject` [n]."""
        names, subject = np.unique(subject, return_inverse=True)
        return cls(subject, len(names), count, seed)

    def take(self, index: np.ndarray) -> Self:
        """The same draws for some of the samples: by their places, or by a mask [n]."""
        return replace(self, subject=self.subject[index])

    def counts(self, resamples: range) -> np.ndarray:
        """How often each subject is in some of the resamples: [len(resamples), subjects].

        The type, int32 or int64, has room for the number of samples of any resample.

        >>> Resamples.of(np.array([7, 7, 9]), count=100, seed=0).counts(range(5)).sum(1).tolist()
        [2, 2, 2, 2, 2]
        """
        most = self.subjects * int(np.bincount(self.subject).max(initial=1))
        counts = np.empty((len(resamples), self.subjects), np.int32 if most < 2**31 else np.int64)
        for row, number in zip(counts, resamples, strict=True):
            drawn = np.random.default_rng((self.seed, number)).integers(self.subjects, size=self.subjects)
            row[:] = np.bincount(drawn, minlength=self.subjects)
        return counts


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The known samples of one label from the highest score to the lowest, and where positives stand.

    subject [n]; positive [P], places of the positives; last [P], samples up to the last that scores like the
    positive. tied [T]: which positives share their score; of those first: samples before the first that
    scores so, first_hit: positives before it, last_hit: positives up to the last.
    """

    subject: np.ndarray
    positive: np.ndarray
    last: np.ndarray
    tied: np.ndarray
    first: np.ndarray
    first_hit: np.ndarray
    last_hit: np.ndarray


def areas(
    resamples: Resamples, truth: np.ndarray, score: np.ndarray, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and AUPRC (average precision) of every resample and label, each float64 [R, L].

    `truth` [n, L] of 0, 1 or NaN (left out), `score` [n, L]; NaN where a resample has one class. The scores
    are sorted once a label; a resample then costs two passes over counts. `threads`: as many as cores.
    """
    ranked = [_rank(resamples.subject, *column) for column in zip(truth.T, score.T, strict=True)]
    found = np.full((2, resamples.count, len(ranked)), np.nan)

    def work(block: range) -> None:
        counts = resamples.counts(block)
        for label, ranks in enumerate(ranked):
            step = max(1, CACHE // max(1, len(ranks.subject)))
            for start in range(0, len(block), step):
                here = slice(block.start + start, min(block.start + start + step, block.stop))
                found[:, here, label] = _areas_of(ranks, counts[start : start + step])

    threads = threads or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, _blocks(resamples.count, threads)))
    return found[0], found[1]


def totals(
    resamples: Resamples, sample: np.ndarray, column: np.ndarray, amount: np.ndarray, width: int
) -> np.ndarray:
    """Sums of amounts over the samples of every resample: float64 [R, width].

    `sample`, `column`, `amount` [k]: what is added, from which sample, in which column.

    >>> one = Resamples.of(np.array([5, 5]), count=1, seed=0)
    >>> totals(one, np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([1.0, 2.0, 4.0]), 2).tolist()
    [[3.0, 4.0]]
    """
    cell = resamples.subject[sample] * width + column
    each = np.bincount(cell, amount, resamples.subjects * width).reshape(resamples.subjects, width)
    return np.concatenate([resamples.counts(block) @ each for block in _blocks(resamples.count)])


def evaluate(
    kind: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    truth: np.ndarray,
    probability: np.ndarray,
    resamples: Resamples,
    amounts: Amounts | None = None,
) -> Resampled:
    """What `metrics.evaluate` gives, in every resample: {(label, metric): [R]}.

    Means are, in each resample, over the labels that have both classes there; NaN where no label has.
    """
    if kind == "ordinal":
        each = _ordinal(truth[:, 0], probability, resamples)
        each |= _amounts(probability, resamples, amounts) if amounts is not None else {}
        return {(label, name): value for label in (labels[0], "macro") for name, value in each.items()}
    each = _binary(truth, probability, resamples)
    defined = ~np.isnan(np.stack(list(each.values()))).any(0)
    found = {(label, name): value[:, i] for name, value in each.items() for i, label in enumerate(labels)}
    for group, members in {"macro": labels, **groups}.items():
        kept = defined & np.isin(labels, members)
        for name, value in each.items():
            found[group, name] = _quotient(np.where(kept, value, 0).sum(1), kept.sum(1))
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of a score's values [R], those that are NaN left out; NaN if all are.

    >>> interval(np.array([np.nan, *range(101)]))
    (2.5, 97.5)
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.percentile(values, (OUTSIDE, 100 - OUTSIDE))
    return float(low), float(high)


def with_intervals(scores: Sequence[Score], resampled: Resampled) -> list[Score]:
    """Scores with low and high, which a score without a value does not get."""
    found = []
    for score in scores:
        low, high = interval(resampled[score["label"], score["metric"]])
        defined = not np.isnan(score["value"] + low)
        found.append(Score(**score, low=low, high=high) if defined else Score(**score))
    return found


def undefined(resampled: Resampled) -> dict[str, int]:
    """{label: number of resamples that have no value of it and are in no interval}, where there are any."""
    counts: dict[str, int] = {}
    for (label, _), values in resampled.items():
        counts[label] = max(counts.get(label, 0), int(np.isnan(values).sum()))
    return {label: count for label, count in counts.items() if count}


def _blocks(count: int, threads: int = 1) -> Iterator[range]:
    """Some of the resamples after the other; at least one block a thread."""
    step = max(1, min(BLOCK, -(-count // threads)))
    return (range(start, min(start + step, count)) for start in range(0, count, step))


def _rank(subject: np.ndarray, truth: np.ndarray, score: np.ndarray) -> _Ranked:
    positive, value = metrics.known(truth, score)
    order = np.argsort(-value, kind="stable")
    positive, value = positive[order], value[order]
    edges = np.append(np.flatnonzero(np.diff(value, prepend=np.nan) != 0), len(value))
    place = np.flatnonzero(positive)
    group = np.searchsorted(edges, place, side="right") - 1
    first, last = edges[group], edges[group + 1]
    tied = np.flatnonzero(last - first > 1)
    hits = np.concatenate([[0], np.cumsum(positive)])
    first, beyond = first[tied], last[tied]
    return _Ranked(subject[~np.isnan(truth)][order], place, last, tied, first, hits[first], hits[beyond])


def _areas_of(ranks: _Ranked, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and AUPRC [B] of B resamples; sums of counts are whole numbers and therefore exact."""
    weight = np.take(counts, ranks.subject, axis=1, mode="clip")
    own = np.take(weight, ranks.positive, axis=1, mode="clip")
    seen, hits = _running(weight), _running(own)
    positives, negatives = hits[:, -1].astype(np.float64), (seen[:, -1] - hits[:, -1]).astype(np.float64)
    last = np.take(seen, ranks.last, axis=1, mode="clip").astype(np.float64)
    last_hit = hits[:, 1:].astype(np.float64)
    above = last - last_hit  # negatives that score above the positive, those that score as high counting half
    if len(ranks.tied):
        last_hit[:, ranks.tied] = np.take(hits, ranks.last_hit, axis=1)
        first = np.take(seen, ranks.first, axis=1) - np.take(hits, ranks.first_hit, axis=1)
        above[:, ranks.tied] = (first + last[:, ranks.tied] - last_hit[:, ranks.tied]) / 2
    own = own.astype(np.float64)
    pairs = positives * negatives
    wrong = np.einsum("bp,bp->b", own, above)
    precise = np.einsum("bp,bp->b", own, last_hit / np.maximum(last, 1))
    return _quotient(pairs - wrong, pairs), _quotient(precise, np.where(pairs > 0, positives, 0))


def _running(counts: np.ndarray) -> np.ndarray:
    """[B, n] -> [B, n + 1]: sums of the first 0, 1, ... n counts."""
    sums = np.zeros((len(counts), counts.shape[1] + 1), counts.dtype)
    np.cumsum(counts, axis=1, out=sums[:, 1:])
    return sums


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Above / below, NaN where below is 0."""
    ratio: np.ndarray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)
    return ratio


def _binary(truth: np.ndarray, probability: np.ndarray, resamples: Resamples) -> dict[str, np.ndarray]:
    """{metric: [R, L]}. Brier score and calibration error are sums over samples, of which each has a
    column.
    """
    auroc, auprc = areas(resamples, truth, probability)
    labels = truth.shape[1]
    sample, label = np.nonzero(~np.isnan(truth))
    guess = probability[sample, label].astype(np.float64)
    gap = guess - truth[sample, label]
    place = metrics.calibration_bin(guess)

    def summed(column: np.ndarray, amount: np.ndarray, width: int) -> np.ndarray:
        return totals(resamples, sample, column, amount, width)

    n = summed(label, np.ones(len(label)), labels)
    gaps = summed(label * CALIBRATION_BINS + place, gap, labels * CALIBRATION_BINS)
    gaps = np.abs(gaps.reshape(len(n), labels, CALIBRATION_BINS)).sum(2)
    brier = _quotient(summed(label, gap**2, labels), n)
    return {"auroc": auroc, "auprc": auprc, "brier": brier, "ece": _quotient(gaps, n)}


def _ordinal(truth: np.ndarray, probability: np.ndarray, resamples: Resamples) -> dict[str, np.ndarray]:
    """{metric: [R]}, from the table of true and predicted bins of every resample."""
    classes, sample = probability.shape[1], np.flatnonzero(~np.isnan(truth))
    cell = truth[sample].astype(int) * classes + probability.argmax(1)[sample]
    tables = totals(resamples, sample, cell, np.ones(len(sample)), classes**2)
    tables = tables.reshape(-1, classes, classes)
    right = np.trace(tables, axis1=1, axis2=2)
    return {"kappa": metrics.kappa_of_tables(tables), "accuracy": _quotient(right, tables.sum((1, 2)))}


def _amounts(probability: np.ndarray, resamples: Resamples, amounts: Amounts) -> dict[str, np.ndarray]:
    """{metric: [R]} of the errors in the label's own unit."""
    sample = np.flatnonzero(~np.isnan(amounts.truth))
    errors = metrics.errors(amounts.truth[sample], amounts.predicted(probability[sample]))
    all_in_one = np.zeros(len(sample), np.int64)
    n = totals(resamples, sample, all_in_one, np.ones(len(sample)), 1)[:, 0]
    sums = {name: totals(resamples, sample, all_in_one, error, 1)[:, 0] for name, error in errors.items()}
    return {name: _quotient(total, n) for name, total in sums.items()}
