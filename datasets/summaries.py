"""Summary statistics of records: of each variable, over seven windows of what a sample reads.

Windows are the whole time from ICU admission to the end of the sample, and its first and last 10, 25 and 50 %
(as in mimic3-benchmarks, Harutyunyan et al. 2019, whose windows end at the first and last observation of each
variable). Of a continuous variable: mean, standard deviation, minimum, maximum, skewness and number of
observations. Of a categorical one: the share of each category, and the number of observations.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from datasets.samples import Samples
from datasets.schema import variables
from datasets.store import Store
from datasets.triplets import end_of_record, last_second, read_triplets, stays_of

WINDOWS = ((0.0, 1.0), (0.0, 0.1), (0.0, 0.25), (0.0, 0.5), (0.5, 1.0), (0.75, 1.0), (0.9, 1.0))
STATISTICS = ("mean", "sd", "min", "max", "skew", "count")
EVENTS_AT_ONCE = 1 << 18  # of some stays, whose tables then take some 200 MB


def feature_names() -> list[str]:
    """Return the names of the features, such as "Heart Rate, last 10 %, mean".

    >>> len(feature_names())
    868
    """
    names = []
    for variable in variables():
        of_variable = (
            [*(f"share of {category}" for category in variable.categories), "count"]
            if variable.categories
            else STATISTICS
        )
        names += [f"{variable.name}, {_title(*window)}, {name}" for window in WINDOWS for name in of_variable]
    return names


def _title(start: float, stop: float) -> str:
    if stop == 1:
        return "whole" if start == 0 else f"last {round(100 * (1 - start))} %"
    return f"first {round(100 * stop)} %"


def summarize(store: Store, samples: Samples) -> np.ndarray:
    """Return the features of samples, float32 [n, features]; NaN where nothing was observed.

    Values are normalised as the hours are. Memory is bounded beside the result: some stays at a time.
    """
    features = np.empty((len(samples), len(feature_names())), np.float32)
    stay_row = stays_of(store, samples)
    end = end_of_record(store, samples)
    order = np.argsort(stay_row, kind="stable")
    events = store.stay_columns(["events"])["events"]
    for rows in _parts(stay_row[order], events):
        part = order[rows]
        stays, stay = np.unique(stay_row[part], return_inverse=True)
        seconds, triplets = read_triplets(store, stays, on_disk=False)
        counts = events[stays]
        of_event = np.repeat(np.arange(len(stays)), counts)
        features[part] = _summarize_stays(of_event, seconds, triplets, stay, end[part])
    return features


def _parts(stay_row: np.ndarray, events: np.ndarray) -> Iterator[slice]:
    """Yield slices of samples in the order of their stays, with whole stays and EVENTS_AT_ONCE events."""
    is_first = np.append(True, stay_row[1:] != stay_row[:-1])[: len(stay_row)]
    first = np.flatnonzero(is_first)
    part = np.cumsum(events[stay_row[first]]) // EVENTS_AT_ONCE
    cuts = [*first[np.append(True, part[1:] != part[:-1])[: len(part)]].tolist(), len(stay_row)]
    yield from (slice(start, stop) for start, stop in pairwise(cuts))


def _summarize_stays(
    of_event: np.ndarray, seconds: np.ndarray, triplets: np.ndarray, stay: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """Return the features of samples that read some stays; of_event, stay: the stay of each event, sample."""
    blocks = []
    channel = triplets[:, 1].astype(np.int64)
    starts, stops = (np.array([window[side] for window in WINDOWS]) for side in (0, 1))
    low = np.ceil(np.round(end[:, None] * starts * 3600, 3)).astype(np.int64)
    high = np.where(stops == 1, last_second(end)[:, None], np.floor(end[:, None] * stops * 3600 + 1e-3))
    for variable in variables():
        mine = np.flatnonzero(
            (channel >= variable.first_channel) & (channel < variable.first_channel + variable.width)
        )
        key = of_event[mine] << 32 | seconds[mine]
        first = np.searchsorted(key, stay[:, None] << 32 | low)
        stop = np.searchsorted(key, stay[:, None] << 32 | high.astype(np.int64), side="right")
        stop = np.maximum(stop, first)
        if variable.categories:
            place = channel[mine] - variable.first_channel
            blocks.append(_shares(place, variable.width, first, stop))
        else:
            groups = np.flatnonzero(np.append(True, of_event[mine][1:] != of_event[mine][:-1])[: len(mine)])
            blocks.append(_statistics(triplets[mine, 2].astype(np.float64), groups, first, stop))
    return np.concatenate([block.reshape(len(stay), -1) for block in blocks], axis=1)


def _shares(place: np.ndarray, width: int, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the share of each category and the count in ranges [n, W] of observations: [n, W, width + 1]."""
    is_category = place[:, None] == np.arange(width)
    before = np.concatenate([np.zeros((1, width), np.int64), is_category.cumsum(0)])
    found = before[stop] - before[first]
    count = (stop - first)[..., None]
    with np.errstate(invalid="ignore"):
        return np.concatenate([found / count, count], axis=-1).astype(np.float32)


def _statistics(values: np.ndarray, groups: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return STATISTICS of ranges [n, W] of values, each inside a group: [n, W, 6].

    `groups` are the first values of the groups. Moments are taken around a value of the group, so that an
    outlier elsewhere costs the others no digits.
    """
    count = stop - first
    lengths = np.diff(np.append(groups, len(values)))
    order = np.lexsort((values, np.repeat(np.arange(len(groups)), lengths)))
    centres = values[order][groups + lengths // 2] if len(values) else values
    centred = values - np.repeat(centres, lengths)
    result = np.full((*first.shape, len(STATISTICS)), np.nan, np.float32)
    result[..., -1] = count
    some = count > 0
    if not some.any():
        return result
    start, n = first[some], count[some]
    centre = np.repeat(centres, lengths)[start]
    sums = [RangeTable(centred**power, np.add, int(n.max())).disjoint(start, n) for power in (1, 2, 3)]
    mean, square, cube = (total / n for total in sums)
    variance = np.maximum(square - mean**2, 0)
    third = cube - 3 * mean * square + 2 * mean**3
    is_constant = variance <= 1e-12 * np.maximum(square, 1e-12)
    deviation = np.sqrt(np.where(is_constant, 0, variance))
    skew = np.where(is_constant, 0, third / np.where(is_constant, 1, deviation) ** 3)
    low, high = (RangeTable(values, f, int(n.max())).overlapping(start, n) for f in (np.minimum, np.maximum))
    result[some, :-1] = np.stack([mean + centre, deviation, low, high, skew], axis=1)
    return result


class RangeTable:
    """Sums, minima or maxima of all ranges of 1, 2, 4, ... values, from which those of any range follow."""

    def __init__(self, values: np.ndarray, function: np.ufunc, longest: int) -> None:
        self.function, self.levels = function, [values]
        while 2 ** len(self.levels) <= longest:
            half = 2 ** (len(self.levels) - 1)
            self.levels.append(function(self.levels[-1][:-half], self.levels[-1][half:]))

    def disjoint(self, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Return the sums of ranges of 1 value or more, from ranges that do not overlap."""
        total, place = np.zeros(len(start)), start.copy()
        for power, level in enumerate(self.levels):
            has = np.flatnonzero(length >> power & 1)
            total[has] += level[place[has]]
            place[has] += 1 << power
        return total

    def overlapping(self, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Return the minima or maxima of ranges of 1 value or more, from two ranges that may overlap."""
        result = np.empty(len(start))
        power = np.frexp(length.astype(np.float64))[1] - 1
        for exponent, level in enumerate(self.levels):
            has = np.flatnonzero(power == exponent)
            last = start[has] + length[has] - (1 << exponent)
            result[has] = self.function(level[start[has]], level[last])
        return result
