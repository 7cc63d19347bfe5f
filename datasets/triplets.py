"""Triplets (hours, variable, value) of events.parquet: those that samples read, held as the hours are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from datasets.placement import TRIPLET_BYTES, Placement
from datasets.ranges import concat_ranges, longest_of_groups
from datasets.samples import Samples
from datasets.schema import Triplets, variables
from datasets.store import Store
from utils.device import to_device
from utils.lazy_pandas import pd

EVENTS_AT_ONCE = 1 << 20  # read of events.parquet


def count_triplets(store: Store, samples: Samples) -> int:
    """Return how many triplets the stays of samples have."""
    return int(store.stay_columns(["events"])["events"][np.unique(stays_of(store, samples))].sum())


def stays_of(store: Store, samples: Samples) -> np.ndarray:
    """Return the row in stays.parquet of each sample's stay, int64 [n]."""
    offset = store.stay_columns(["offset"])["offset"]
    row: np.ndarray = np.searchsorted(offset, samples.offset, side="right") - 1
    return row


def end_of_record(store: Store, samples: Samples) -> np.ndarray:
    """Return until when each sample reads its record, float64 [n], in hours since ICU admission.

    Some tasks read less than the time until the prediction.
    """
    end: np.ndarray = np.minimum(samples.end_hours, samples.bins * store.manifest.timestep)
    return end


def last_second(end_hours: np.ndarray) -> np.ndarray:
    """Return the last whole second of records that end after some hours, int64 [n]."""
    seconds: np.ndarray = np.floor(end_hours * 3600 + 1e-3).astype(np.int64)
    return seconds


class TripletReader:
    """The triplets of samples by the rows of these, from where they are held to the model's device.

    A sample reads the events until the last whole second of its record, as the hours do. On disk, the
    triplets lie in a temporary file that has no name, so that any of them can be read.
    """

    def __init__(self, store: Store, samples: Samples, placement: Placement, device: torch.device) -> None:
        self.device = device
        end_hours = end_of_record(store, samples)
        self.end = end_hours.astype(np.float32)
        stay_row, self.stay = np.unique(stays_of(store, samples), return_inverse=True)
        seconds, triplets = read_triplets(store, stay_row, placement == "disk")
        counts = store.stay_columns(["events"])["events"][stay_row]
        ends = np.cumsum(counts)
        self.first = (ends - counts)[self.stay]
        key = np.repeat(np.arange(len(counts)), counts) << 32 | seconds
        self.count = np.searchsorted(key, self.stay << 32 | last_second(end_hours), side="right") - self.first
        self.held: Tensor | None = None
        if placement != "disk":
            self.held = torch.from_numpy(triplets).to(device if placement == "cuda" else "cpu")
        self.stored = triplets if placement == "disk" else None

    def __call__(self, row: np.ndarray) -> Triplets:
        """Return the triplets of the samples `row` [B]; those of a stay once, up to its latest sample."""
        longest, stay = longest_of_groups(self.stay[row], self.count[row])
        count = self.count[row][longest]
        triplets = self._read(concat_ranges(self.first[row][longest], count)[1])
        return Triplets(
            hours=triplets[:, 0],
            channel=triplets[:, 1].long(),
            value=triplets[:, 2],
            first=torch.from_numpy((np.cumsum(count) - count)[stay]),
            counts=torch.from_numpy(self.count[row]),
            end=to_device(torch.from_numpy(self.end[row]), self.device),
        )

    def _read(self, index: np.ndarray) -> Tensor:
        """Return triplets [n, 3] on the model's device."""
        if self.held is None:
            assert self.stored is not None
            return to_device(torch.from_numpy(self.stored[index]), self.device)
        rows = to_device(torch.from_numpy(index), self.held.device)
        return to_device(self.held.index_select(0, rows), self.device)


def read_triplets(store: Store, stay_row: np.ndarray, on_disk: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds, int64 [n], and the triplets, float32 [n, 3], of stays `stay_row`, which are rising.

    They are in the order of the stays and, in a stay, of time. `on_disk` maps the triplets from a file.
    """
    counts = store.stay_columns(["events"])["events"]
    total = int(counts[stay_row].sum())
    seconds = np.empty(total, np.int64)
    if on_disk:
        with tempfile.TemporaryFile() as file:  # the mapping outlives it
            file.truncate(max(total, 1) * TRIPLET_BYTES)
            triplets: np.ndarray = np.memmap(file, np.float32, "r+", shape=(max(total, 1), 3))
    else:
        triplets = np.empty((total, 3), np.float32)
    mean, deviation = store.normalizer()
    done = 0
    for stays in _slices(counts):
        wanted = stay_row[(stay_row >= stays.start) & (stay_row < stays.stop)]
        if not len(wanted):
            continue
        events = store.events(counts, stays)
        events = events[np.isin(events["stay_row"].to_numpy(), wanted)]
        part = slice(done, done + len(events))
        seconds[part] = np.rint(events["hours"].to_numpy() * 3600)
        triplets[part] = _normalised(events, mean, deviation)
        done += len(events)
    return seconds, triplets


def _slices(counts: np.ndarray) -> Iterator[slice]:
    """Yield slices of the stays, with some EVENTS_AT_ONCE events each."""
    part = np.cumsum(counts) // EVENTS_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(counts)]
    yield from (slice(start, stop) for start, stop in pairwise(cuts))


def _normalised(events: pd.DataFrame, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return events as triplets, float32 [n, 3]: each category is a channel of its own, with the value 1."""
    channels = {v.name: (v.first_channel, bool(v.categories)) for v in variables()}
    names = events["variable"].cat
    first, is_category = (
        np.array([channels[name][part] for name in names.categories])[names.codes] for part in (0, 1)
    )
    value = events["value"].to_numpy()
    channel = first + np.where(is_category, value, 0).astype(np.int64)
    normalised = (value.astype(np.float32) - mean[channel]) / deviation[channel]
    hours = events["hours"].to_numpy()
    return np.stack([hours, channel, np.where(is_category, 1.0, normalised)], axis=1).astype(np.float32)
