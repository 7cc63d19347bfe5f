"""Buckets: temporary files that hold the observations of some stays each, so that memory stays bounded."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from datasets.events.cleaning import EVENT_DTYPE
from datasets.schema import variables
from utils.files import explain_disk_full
from utils.threads import in_order

STAYS_PER_BUCKET = 256
ROWS_PER_FLUSH = 250_000

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


def write_buckets(batches: Iterable[np.ndarray], folder: Path, first_second: np.ndarray) -> None:
    """Append events to their stays' buckets, and lower `first_second` [stays] to that of each first event.

    A thread of its own sorts and writes, while the next batches are made.
    """

    def append(parts: list[np.ndarray]) -> None:
        _append(parts, folder, first_second)

    for _ in in_order(append, _grouped(batches), threads=1):
        pass


def _grouped(batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield lists of batches that hold ROWS_PER_FLUSH events or more together, the last one maybe fewer."""
    pending: list[np.ndarray] = []
    for events in batches:
        if len(events):
            pending.append(events)
        if sum(map(len, pending)) >= ROWS_PER_FLUSH:
            yield pending
            pending = []
    if pending:
        yield pending


def _append(parts: list[np.ndarray], folder: Path, first_second: np.ndarray) -> None:
    raw_bytes = np.dtype((np.void, EVENT_DTYPE.itemsize))  # joining bytes is ten times as fast as fields
    events = np.concatenate([part.view(raw_bytes) for part in parts]).view(EVENT_DTYPE)
    _note_first(events["stay_row"], events["second"], first_second)
    bucket = events["stay_row"] // STAYS_PER_BUCKET
    order = np.argsort(bucket, kind="stable")
    numbers, counts = np.unique(bucket, return_counts=True)
    ends = np.cumsum(counts)
    for number, start, end in zip(numbers, ends - counts, ends, strict=True):
        path = bucket_path(folder, int(number))
        with explain_disk_full(path), path.open("ab") as file:
            file.write(events.take(order[start:end]).tobytes())


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
    events = deduplicate(events)
    return add_glasgow_total(events) if protocol == "corrected" else events


def deduplicate(events: np.ndarray) -> np.ndarray:
    """Sort by stay, second and variable; keep the greatest of the values charted at the same second."""
    key = events["stay_row"].astype(np.int64) << 40 | events["second"].astype(np.int64) << 8
    key |= events["variable"]
    order = np.argsort(key, kind="stable")
    same_as_next = np.diff(key[order]) == 0
    tied = np.flatnonzero(np.append(same_as_next, False) | np.insert(same_as_next, 0, False))  # few
    tie_keys = [events[name][order[tied]] for name in ("value", "tie_break")]
    order[tied] = order[tied][np.lexsort([*tie_keys, key[order[tied]]])]
    return events.take(order[np.append(~same_as_next, True)]) if len(events) else events


def add_glasgow_total(events: np.ndarray) -> np.ndarray:
    """Add the Glasgow Coma Scale's total where eye, motor and verbal were charted at the same second."""
    index = {variable.name: number for number, variable in enumerate(variables())}
    if not index.keys() >= {*GLASGOW_POINTS, GLASGOW_TOTAL}:  # a grid without some of them
        return events
    parts = (_glasgow_points(events, index[name], points) for name, points in GLASGOW_POINTS.items())
    eye, motor, verbal = parts
    keys = sorted(eye.keys() & motor.keys() & verbal.keys())
    total = variables()[index[GLASGOW_TOTAL]]
    slots = {int(text): slot for slot, text in enumerate(total.categories)}
    added = np.zeros(len(keys), EVENT_DTYPE)
    added["stay_row"] = [key >> 32 for key in keys]
    added["second"] = [key & 0xFFFFFFFF for key in keys]
    added["variable"] = index[GLASGOW_TOTAL]
    added["value"] = [slots[eye[key] + motor[key] + verbal[key]] for key in keys]
    return deduplicate(np.concatenate([events, added]))


def _glasgow_points(events: np.ndarray, variable: int, points: dict[str, int]) -> dict[int, int]:
    """Return stay_row << 32 | second -> points of one part of the scale, where its text has points."""
    by_slot = np.array([points.get(text, 0) for text in variables()[variable].categories])
    charted = events[events["variable"] == variable]
    score = by_slot[charted["value"].astype(int)]
    keys = charted["stay_row"].astype(np.int64) << 32 | charted["second"]
    return dict(zip(keys[score > 0].tolist(), score[score > 0].tolist(), strict=True))
