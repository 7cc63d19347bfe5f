"""Batches of samples by index alone: seeded, split over ranks, and resumable at any step."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from datasets.augment import Views, centre_view, random_views, warp
from datasets.placement import Normalizer, ResidentArray, choose_placement
from datasets.samples import SAMPLE_SELECTIONS, DataConfig, LabeledTask, Samples, concat_ranges, load_samples
from datasets.schema import Batch
from datasets.store import Store
from utils.device import to_device
from utils.distributed import Process
from utils.threads import in_order

AHEAD = 3  # batches made while the model computes; on disk each by a thread of its own
ORDER, VIEWS = 0, 1  # what a random stream of an epoch is for
NO_ROWS = np.zeros(0, np.int64)


class Batches:
    """The batches of a split, an epoch at a time.

    In training, an epoch's order depends on (seed, epoch), and views on (seed, epoch, step), whatever the
    number of ranks. In evaluation samples are in order and views central. Each rank takes a contiguous part
    of every batch; no sample is dropped, repeated or padded, so the last batch may be empty on some ranks.
    """

    def __init__(
        self,
        store: Store,
        samples: Samples,
        config: DataConfig,
        *,
        seed: int,
        device: torch.device,
        train: bool,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.samples = samples
        self.config = config
        self.device = torch.device(device)
        self.train = train
        self.seed = seed
        self.rank = rank
        self.world = world
        self.selection = SAMPLE_SELECTIONS[config.data_pairs]
        in_memory = config.data_device != "disk"
        hours = needed_hours(samples) if in_memory and self.selection.ehr else NO_ROWS
        images = needed_images(samples) if in_memory and self.selection.cxr else NO_ROWS
        self.placement = choose_placement(config.data_device, self.device, len(hours), len(images), world)
        self._offset, self._partial_bin_row = samples.offset, samples.partial_bin_row
        self._cxr_row = samples.cxr_row if self.selection.cxr else np.full_like(samples.cxr_row, -1)
        if self.placement != "disk":  # rows then count in what was brought into memory
            self._offset = np.searchsorted(hours, self._offset)
            self._partial_bin_row = _index_of(hours, self._partial_bin_row)
            self._cxr_row = _index_of(images, self._cxr_row)
        held = self.placement, self.device
        self._hours = ResidentArray(store.read_hours, store.hourly, hours, *held, Normalizer(store))
        self._images = ResidentArray(store.read_images, store.cxr, images, *held)

    def __len__(self) -> int:
        return -(-len(self.samples) // self.config.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yield this rank's part of every batch from step `start` on; close it if you leave early."""
        order = self._order(epoch)
        threads = AHEAD if self.placement == "disk" else 1
        yield from in_order(
            lambda step: self._batch(order, epoch, step), range(start, len(self)), threads, AHEAD // threads
        )

    def _order(self, epoch: int) -> np.ndarray:
        order = np.arange(len(self.samples))
        return self._random(epoch, ORDER).permutation(order) if self.train else order

    def _random(self, epoch: int, *stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, *stream))

    def _batch(self, order: np.ndarray, epoch: int, step: int) -> Batch:
        rows = order[step * self.config.batch_size : (step + 1) * self.config.batch_size]
        mine = np.array_split(np.arange(len(rows)), self.world)[self.rank]
        views = None
        if self.train and self.selection.cxr:
            random = self._random(epoch, VIEWS, step)
            views = random_views(random, len(rows), self.config.transforms_cxr).take(mine)
        row = rows[mine]
        has_cxr = self._cxr_row[row] >= 0
        return Batch(
            ehr=self._ehr(row) if self.selection.ehr else None,
            hours=torch.from_numpy(self.samples.bins[row]),
            cxr=self._views(row[has_cxr], views and views.take(has_cxr)) if self.selection.cxr else None,
            has_ehr=self._to_device(np.full(len(row), self.selection.ehr)),
            has_cxr=self._to_device(has_cxr),
            labels=self._to_device(self.samples.labels[row]),
            row=torch.from_numpy(row),
            gap_days=self._to_device(self.samples.gap_days[row]),
        )

    def _to_device(self, values: np.ndarray) -> Tensor:
        return to_device(torch.from_numpy(values), self.device)

    def _ehr(self, row: np.ndarray) -> PackedSequence:
        """Return the hours of some samples, gathered once, in the order of a packed sequence."""
        bins = self.samples.bins[row]
        longest_first = np.argsort(-bins, kind="stable")
        by_length = row[longest_first]
        offset, partial_bin_row = self._offset[by_length], self._partial_bin_row[by_length]
        hours, batch_sizes = packed_rows(offset, bins[longest_first], partial_bin_row)
        indices = self._to_device(longest_first), self._to_device(np.argsort(longest_first))
        return PackedSequence(self._hours(hours), torch.from_numpy(batch_sizes), *indices)

    def _views(self, row: np.ndarray, views: Views | None) -> Tensor:
        """Return the X-rays [P, 1, S, S] of P samples."""
        images, size = self._images(self._cxr_row[row]), self.config.image_size
        return centre_view(images, size) if views is None else warp(images, views, size)


def load_batches(
    store: Store, task: LabeledTask, split: str, config: DataConfig, seed: int, process: Process
) -> Batches:
    """Return batches of a split's samples; shuffled and with random views in training. See `load_samples`."""
    return Batches(
        store,
        load_samples(store, task, split, config, seed),
        config,
        seed=seed,
        device=process.device,
        train=split == "train",
        rank=process.rank,
        world=process.world,
    )


def packed_rows(
    offset: np.ndarray, bins: np.ndarray, partial_bin_row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of B samples' hours, time-major, and samples per hour; `bins` [B] must be falling.

    >>> [part.tolist() for part in packed_rows(np.array([10, 50]), np.array([3, 1]), np.array([-1, 99]))]
    [[10, 99, 11, 12], [2, 1, 1]]
    """
    longest = bins[0] if len(bins) else 0
    batch_sizes = len(bins) - np.cumsum(np.bincount(bins, minlength=longest + 1))[:longest]
    hour, sample = concat_ranges(np.zeros(longest, np.int64), batch_sizes)
    rows = offset[sample] + hour
    first_of_hour = np.cumsum(batch_sizes) - batch_sizes
    partial = np.flatnonzero(partial_bin_row >= 0)
    rows[first_of_hour[bins[partial] - 1] + partial] = partial_bin_row[partial]
    return rows, batch_sizes


def needed_hours(samples: Samples) -> np.ndarray:
    """Return the rows, for Store.read_hours, that samples read: each once, rising."""
    offset, stay = np.unique(samples.offset, return_inverse=True)
    longest = np.zeros(len(offset), np.int64)
    np.maximum.at(longest, stay, samples.bins)
    partial = np.unique(samples.partial_bin_row[samples.partial_bin_row >= 0])
    return np.concatenate([concat_ranges(offset, longest)[1], partial])


def needed_images(samples: Samples) -> np.ndarray:
    """Return the rows of cxr.npy that samples read: each once, rising."""
    return np.unique(samples.cxr_row[samples.cxr_row >= 0])


def _index_of(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return where each row is among some rising rows; -1 stays."""
    return np.where(row >= 0, np.searchsorted(rows, row), -1)
