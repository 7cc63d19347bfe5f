"""Buckets: temporary files that hold the observations of some stays each, so that memory stays bounded."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from datasets.events.cleaning import EVENT_DTYPE
from datasets.schema import variables
from utils.early_flush import early_flush
from utils.files import explain_disk_full
from utils.threads import in_order

STAYS_PER_BUCKET = 256
ROWS_PER_APPEND = 250_000
BYTES_PER_FLUSH = 1 << 20  # of a bucket

# Points of the Glasgow Coma Scale for the texts that MIMIC-IV uses: eye, motor and verbal.
GLASGOW_POINTS = {
    "Glascow coma scale eye opening": {"None": 1, "To Pain": 2, "To Speech": 3, "Spontaneously": 4},
    "Glascow coma scale motor response": {
        "No response": 1, "Abnormal extension": 2, "Abnormal Flexion": 3, "Flex-withdraws": 4,
        "Localizes Pain": 5, "Obeys Commands": 6,
    },
    "Glascow coma scale verbal response": {
        "No Response": 1, "No Response-ETT": 1, "Incomprehensible sounds": 2, "Inappropriate Words": 3,
        "Confused": 4, "Oriented": 5,
    },
}  # fmt: skip
GLASGOW_TOTAL = "Glascow coma scale total"
RAW_BYTES = np.dtype((np.void, EVENT_DTYPE.itemsize))  # joining bytes is ten times as fast as fields


def write_buckets(batches: Iterable[np.ndarray], folder: Path, first_second: np.ndarray) -> None:
    """Append events to their stays' buckets, and lower `first_second` [stays] to that of each first event.

    A thread of its own sorts and writes, while the next batches are made, and another one brings to disk what
    was written.
    """
    with explain_disk_full(folder), early_flush(BYTES_PER_FLUSH) as flushes:

        def append(parts: list[np.ndarray]) -> None:
            _append(parts, folder, first_second, flushes.wrote)

        for _ in in_order(append, _grouped(batches), threads=1):
            pass


def _grouped(batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield lists of batches that hold ROWS_PER_APPEND events or more together, the last one maybe fewer."""
    pending: list[np.ndarray] = []
    for events in batches:
        if len(events):
            pending.append(events)
        if sum(map(len, pending)) >= ROWS_PER_APPEND:
            yield pending
            pending = []
    if pending:
        yield pending


def _append(
    parts: list[np.ndarray], folder: Path, first_second: np.ndarray, wrote: Callable[[Path, int], object]
) -> None:
    """Append events to their buckets; `wrote` is called with each bucket and the bytes it got."""
    events = np.concatenate([part.view(RAW_BYTES) for part in parts]).view(EVENT_DTYPE)
    _note_first(events["stay_row"], events["second"], first_second)
    bucket = events["stay_row"] // STAYS_PER_BUCKET
    order = np.argsort(bucket, kind="stable")
    numbers, counts = np.unique(bucket, return_counts=True)
    ends = np.cumsum(counts)
    for number, start, end in zip(numbers, ends - counts, ends, strict=True):
        path = bucket_path(folder, int(number))
        with explain_disk_full(path), path.open("ab") as file:
            count = file.write(events.take(order[start:end]).tobytes())
        wrote(path, count)


def _note_first(stay_row: np.ndarray, second: np.ndarray, first_second: np.ndarray) -> None:
    """Lower `first_second` [stays] to the seconds [n] of events; most events of a stay are neighbours."""
    starts = np.flatnonzero(np.append(True, stay_row[1:] != stay_row[:-1]))
    np.minimum.at(first_second, stay_row[starts], np.minimum.reduceat(second, starts))


def bucket_path(folder: Path, number: int) -> Path:
    """Return the file of a bucket."""
    return folder / f"{number:05d}.bin"


def read_bucket(folder: Path, number: int, protocol: str) -> np.ndarray:
    """Return a bucket's events, sorted and deduplicated, with the totals that `corrected` derives."""
    path = bucket_path(folder, number)
    events = np.fromfile(path, EVENT_DTYPE) if path.exists() else np.empty(0, EVENT_DTYPE)
    return with_glasgow_total(events) if protocol == "corrected" else deduplicate(events)


def deduplicate(events: np.ndarray) -> np.ndarray:
    """Sort by stay, second and variable; keep the greatest of the values charted at the same second."""
    return _deduplicate(events)[0]


def _deduplicate(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the events of `deduplicate`, and the keys [n] by which they are sorted."""
    key = _moment(events) | events["variable"]
    order = np.argsort(key)  # which is not stable, and takes half as long
    key = key[order]
    same_as_next = np.diff(key) == 0
    tied = np.flatnonzero(np.append(same_as_next, False) | np.insert(same_as_next, 0, False))  # few
    tie_keys = [events[name][order[tied]] for name in ("value", "tie_break")]
    order[tied] = order[tied][np.lexsort([order[tied], *tie_keys, key[tied]])]
    kept = np.append(~same_as_next, True)[: len(events)]
    return events.take(order[kept]), key[kept]


def _moment(events: np.ndarray) -> np.ndarray:
    """Return int64 keys [n] of stay and second, above the eight bits of a variable."""
    moment: np.ndarray = events["stay_row"].astype(np.int64) << 40 | events["second"].astype(np.int64) << 8
    return moment


def with_glasgow_total(events: np.ndarray) -> np.ndarray:
    """Deduplicate, and add the Glasgow Coma Scale's total where eye, motor and verbal share a second.

    A total that was charted at that second stays as it is.
    """
    events, key = _deduplicate(events)
    index = {variable.name: number for number, variable in enumerate(variables())}
    if not index.keys() >= {*GLASGOW_POINTS, GLASGOW_TOTAL}:  # a grid without some of them
        return events
    parts = (_glasgow_points(events, key, index[name], points) for name, points in GLASGOW_POINTS.items())
    moment, points = _sum_where_shared(*parts)
    moment |= index[GLASGOW_TOTAL]
    place = np.searchsorted(key, moment)
    is_new = np.append(key, -1)[place] != moment
    slots = {int(text): slot for slot, text in enumerate(variables()[index[GLASGOW_TOTAL]].categories)}
    added = np.zeros(np.count_nonzero(is_new), EVENT_DTYPE)
    added["stay_row"], added["second"] = moment[is_new] >> 40, moment[is_new] >> 8 & 0xFFFFFFFF
    added["variable"] = index[GLASGOW_TOTAL]
    added["value"] = [slots[total] for total in points[is_new].tolist()]
    return np.insert(events.view(RAW_BYTES), place[is_new], added.view(RAW_BYTES)).view(EVENT_DTYPE)


def _glasgow_points(
    events: np.ndarray, key: np.ndarray, variable: int, points: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return moments [m] and points [m] of one part of the scale, where its text has points."""
    by_slot = np.array([points.get(text, 0) for text in variables()[variable].categories])
    charted = np.flatnonzero(events["variable"] == variable)
    score = by_slot[events["value"][charted].astype(int)]
    return (key[charted] ^ variable)[score > 0], score[score > 0]


def _sum_where_shared(
    first: tuple[np.ndarray, np.ndarray], *others: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the moments that all parts have, and the sum of their points there; moments are sorted."""
    moment, total = first
    for other, points in others:
        place = np.searchsorted(other, moment)
        shared = np.append(other, -1)[place] == moment
        moment, total = moment[shared], total[shared] + points[place[shared]]
    return moment, total
