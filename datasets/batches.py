"""Batches of samples by index alone: seeded, split over ranks, and resumable at any step.

Each batch holds an input once: samples whose hours are the beginning of another's share its stay. X-rays are
shared as well where batches are made of whole stays; otherwise each sample has a view of its own.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from datasets.augment import CROP, centre_view, random_views, warp
from datasets.data_config import SAMPLE_SELECTIONS, DataConfig
from datasets.image_batch import aspect_of
from datasets.placement import Normalizer, ResidentArray, ResidentImages, choose_placement
from datasets.ranges import concat_ranges, longest_of_groups
from datasets.samples import LabeledTask, Samples, load_samples
from datasets.schema import SHARES_STAYS, Batch, ImageFeatures, RecordNeeds
from datasets.store import Store
from datasets.triplets import TripletReader, count_triplets
from utils.device import to_device
from utils.distributed import Process
from utils.threads import in_order

AHEAD = 3  # batches made while the model computes; on disk each by a thread of its own
ORDER, VIEWS = 0, 1  # what a random stream of an epoch is for
NO_ROWS = np.zeros(0, np.int64)
# Samples of a batch of inputs, as a multiple of batch_size at most: what fuses features needs memory, too.
SAMPLES_PER_INPUT = 16

By = Literal["sample", "stay", "input"]


def _leave_cores_to_the_model() -> None:
    """Let PyTorch use no other thread for the work of this one.

    The threads that it starts for each operation wait for the next one without sleeping. Beside a model that
    computes on the same cores, they took more of its time than the work itself. Threads that call PyTorch
    first after this have one, too, but not those that have begun, such as the model's.
    """
    torch.set_num_threads(1)


class Batches:
    """The batches of a split, an epoch at a time.

    `by` says what a batch holds: batch_size samples ("sample"); whole stays with batch_size samples in all
    ("stay"), or with batch_size distinct hours or X-rays in all ("input"), to within one stay. `needs` is
    what reads the records; "input" is "stay" if it shares nothing between the samples of a stay.

    In training, an epoch's order depends on (seed, epoch), and views on (seed, epoch, step), whatever the
    number of ranks. In evaluation stays are in order and views central; `crop` is what these show, as of
    `centre_view`, for an encoder that expects another part than the published one; X-rays keep their shape
    then. Each rank takes a contiguous part of every batch; no sample is repeated or padded, so the last
    batch may be empty on some ranks. No sample is dropped, except that a training batch of whole stays with
    fewer samples than ranks is empty on all.
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
        by: By = "sample",
        crop: float | None = None,
        features: ImageFeatures | None = None,
        needs: RecordNeeds = SHARES_STAYS,
    ) -> None:
        self.samples = samples
        self.config = config
        self.device = torch.device(device)
        self.train = train
        self.seed = seed
        self.rank = rank
        self.world = world
        self.by: By = "stay" if by == "input" and not needs.shares_stays else by
        self.selection = SAMPLE_SELECTIONS[config.data_pairs]
        in_memory = config.data_device != "disk"
        hours = needed_hours(samples) if in_memory and self.selection.ehr else NO_ROWS
        images = needed_images(samples) if in_memory and self.selection.cxr and not features else NO_ROWS
        reads_triplets = needs.triplets and self.selection.ehr
        triplets = count_triplets(store, samples) if in_memory and reads_triplets else 0
        sizes = len(hours), int(store.cxr.size[images].sum()), triplets
        self.placement = choose_placement(config.data_device, self.device, sizes, world)
        self._offset, self._partial_bin_row = samples.offset, samples.partial_bin_row
        self._cxr_row = samples.cxr_row if self.selection.cxr else np.full_like(samples.cxr_row, -1)
        if self.placement != "disk":  # rows then count in what was brought into memory
            self._offset = np.searchsorted(hours, self._offset)
            self._partial_bin_row = _index_of(hours, self._partial_bin_row)
            self._cxr_row = _index_of(images, self._cxr_row)
        self._features = None
        if features is not None:  # rows then count in these
            self._cxr_row = _index_of(features.rows, samples.cxr_row)
            self._features = features.features.to(self.device)
        held = self.placement, self.device
        self._hours = ResidentArray(store.read_hours, store.hourly, hours, *held, Normalizer(store))
        self._images = ResidentImages(store.cxr, images, *held)
        self._crop = CROP if crop is None else crop
        self._square = config.squeezes_cxr(store.manifest.protocol if crop is None else "corrected")
        self._triplets = TripletReader(store, samples, *held) if reads_triplets else None
        # Samples with equal keys read the same stay from its first hour on; others have a partial bin.
        self._hours_key = np.where(self._partial_bin_row >= 0, -2 - self._partial_bin_row, self._offset)
        self._group_by_stay()

    def _group_by_stay(self) -> None:
        """Sort the samples by stay, stays by their first sample; weigh each stay as a part of a batch."""
        if self.by == "sample":
            self._rows_by_stay, self._first = np.arange(len(self.samples)), np.arange(len(self.samples) + 1)
            self._weights = np.ones(len(self.samples), np.int64)
            return
        _, first, stay = np.unique(self._offset, return_index=True, return_inverse=True)
        stay = np.argsort(np.argsort(first))[stay]
        self._rows_by_stay = np.argsort(stay, kind="stable")
        count = np.bincount(stay)
        self._first = np.append(0, np.cumsum(count))
        self._weights = count
        if self.by == "input":
            hours = distinct_of_groups(stay, self._hours_key) if self.selection.ehr else 0
            images = distinct_of_groups(stay, self._cxr_row) if self.selection.cxr else 0
            self._weights = np.maximum(np.maximum(hours, images), -(-count // SAMPLES_PER_INPUT))

    def __len__(self) -> int:
        return min(-(-int(self._weights.sum()) // self.config.batch_size), len(self._weights))

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yield this rank's part of every batch from step `start` on; close it if you leave early."""
        order = np.arange(len(self._weights))
        if self.train:
            order = self._random(epoch, ORDER).permutation(order)
        if self.by == "sample":
            cuts = np.append(np.arange(0, len(order), self.config.batch_size), len(order))
        else:
            cuts = split_evenly(self._weights[order], len(self))
        torch.get_num_threads()  # settles the number of this thread, which runs the model
        threads = AHEAD if self.placement == "disk" else 1
        yield from in_order(
            lambda step: self._batch(order[cuts[step] : cuts[step + 1]], epoch, step),
            range(start, len(self)),
            threads,
            AHEAD // threads,
            _leave_cores_to_the_model if self.device.type == "cpu" else None,
        )

    def _rows_of(self, stays: np.ndarray) -> np.ndarray:
        """Return the samples of some stays."""
        first = self._first[stays]
        rows: np.ndarray = self._rows_by_stay[concat_ranges(first, self._first[stays + 1] - first)[1]]
        return rows

    def _random(self, epoch: int, *stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, *stream))

    def _part(self, stays: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return which of the samples `rows` of a batch this rank takes; whole stays if there are enough."""
        if self.by == "sample" or len(stays) < self.world:
            part = np.array_split(np.arange(len(rows)), self.world)[self.rank]
            return part[:0] if self.train and self.by != "sample" and len(rows) < self.world else part
        samples = self._first[stays + 1] - self._first[stays]
        ends = np.append(0, np.cumsum(samples))[split_evenly(samples, self.world)]
        return np.arange(ends[self.rank], ends[self.rank + 1])

    def _batch(self, stays: np.ndarray, epoch: int, step: int) -> Batch:
        """Return this rank's part of the batch of some stays; if by sample, of some samples."""
        rows = self._rows_of(stays)
        mine = self._part(stays, rows)
        row = rows[mine]
        ehr, stay = self._ehr(row)
        cxr, image = self._cxr(rows, mine, epoch, step)
        return Batch(
            ehr=ehr,
            stay=self._to_device(stay),
            last=self._to_device(self.samples.bins[row] - 1),
            hours=torch.from_numpy(self.samples.bins[row]),
            cxr=cxr,
            image=self._to_device(image),
            paired=self._to_device(np.flatnonzero(image >= 0)),
            has_ehr=self._to_device(np.full(len(row), self.selection.ehr)),
            has_cxr=self._to_device(image >= 0),
            labels=self._to_device(self.samples.labels[row]),
            row=torch.from_numpy(row),
            gap_days=self._to_device(self.samples.gap_days[row]),
            triplets=None if self._triplets is None else self._triplets(row),
        )

    def _to_device(self, values: np.ndarray) -> Tensor:
        return to_device(torch.from_numpy(values), self.device)

    def _ehr(self, row: np.ndarray) -> tuple[PackedSequence | None, np.ndarray]:
        """Return the hours that some samples read, each once, and the stay of each sample among these.

        The hours are gathered once, in the order of a packed sequence.
        """
        if not self.selection.ehr:
            return None, np.arange(len(row))
        longest, stay = longest_of_groups(self._hours_key[row], self.samples.bins[row])
        row = row[longest]
        bins = self.samples.bins[row]
        longest_first = np.argsort(-bins, kind="stable")
        by_length = row[longest_first]
        offset, partial_bin_row = self._offset[by_length], self._partial_bin_row[by_length]
        hours, batch_sizes = packed_rows(offset, bins[longest_first], partial_bin_row)
        indices = self._to_device(longest_first), self._to_device(np.argsort(longest_first))
        return PackedSequence(self._hours(hours), torch.from_numpy(batch_sizes), *indices), stay

    def _cxr(
        self, rows: np.ndarray, mine: np.ndarray, epoch: int, step: int
    ) -> tuple[Tensor | None, np.ndarray]:
        """Return this rank's X-rays [P, 1, S, S], or their features, and which of these each sample has.

        In training, views are drawn for all ranks: one for each sample, or for each X-ray if they are shared.
        """
        if not self.selection.cxr:
            return None, np.full(len(mine), -1)
        cxr_row, view = self._cxr_row[rows], np.arange(len(rows))
        present = cxr_row[mine] >= 0
        if self.by != "sample":
            cxr_row, view = np.unique(cxr_row, return_inverse=True)
        used, index = np.unique(view[mine][present], return_inverse=True)
        image = np.full(len(mine), -1)
        image[present] = index
        if self._features is not None:
            return self._features[self._to_device(cxr_row[used])], image
        images, size = self._images(cxr_row[used]), self.config.image_size
        if not self.train:
            return centre_view(images, size, self._crop, self._square), image
        aspect = np.ones((len(cxr_row), 2))
        if not self._square:
            shown = cxr_row[cxr_row >= 0]
            aspect[cxr_row >= 0] = aspect_of(self._images.height[shown], self._images.width[shown])
        views = random_views(self._random(epoch, VIEWS, step), aspect, self.config.transforms_cxr)
        return warp(images, views.take(used), size), image


def check_batch_size(batch_size: int, world: int) -> None:
    """Raise ValueError if there are more processes than samples in a batch, which all of them share."""
    if batch_size < world:
        raise ValueError(
            f"--batch_size {batch_size} is that of all {world} processes together; use {world} or more, or "
            "start fewer processes"
        )


def load_batches(
    store: Store,
    task: LabeledTask,
    split: str,
    config: DataConfig,
    seed: int,
    process: Process,
    needs: RecordNeeds = SHARES_STAYS,
    crop: float | None = None,
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
        crop=crop,
        needs=needs,
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


def split_evenly(weights: np.ndarray, parts: int) -> np.ndarray:
    """Return where to cut stays of some weights into parts of equal weight: int64 [parts + 1], from 0 on.

    Each part has a stay, and weighs the mean of the parts to within the heaviest stay. There are no more
    parts than stays.

    >>> split_evenly(np.array([2, 9, 1, 1, 3]), 4).tolist()
    [0, 1, 2, 3, 5]
    """
    number = np.arange(1, parts)
    middle = np.cumsum(weights) - weights / 2
    cuts = np.maximum(np.searchsorted(middle, weights.sum() * number / parts), number)
    cuts = np.maximum.accumulate(cuts - number) + number  # at least one stay each, from the left
    return np.concatenate([[0], np.minimum(cuts, len(weights) - parts + number), [len(weights)]])


def distinct_of_groups(group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return how many values each group 0, 1, 2, ... has, without -1.

    >>> distinct_of_groups(np.array([1, 0, 1, 1]), np.array([4, -1, 4, 5])).tolist()
    [0, 2]
    """
    order = np.lexsort((value, group))
    pair = np.stack([group[order], value[order]])
    is_new = np.append(True, (pair[:, 1:] != pair[:, :-1]).any(0))[: len(order)]
    return np.bincount(pair[0], is_new & (pair[1] != -1)).astype(np.int64)


def needed_hours(samples: Samples) -> np.ndarray:
    """Return the rows, for Store.read_hours, that samples read: each once, rising."""
    offset, stay = np.unique(samples.offset, return_inverse=True)
    longest = np.zeros(len(offset), np.int64)
    np.maximum.at(longest, stay, samples.bins)
    partial = np.unique(samples.partial_bin_row[samples.partial_bin_row >= 0])
    return np.concatenate([concat_ranges(offset, longest)[1], partial])


def needed_images(samples: Samples) -> np.ndarray:
    """Return the rows of cxr.parquet that samples read: each once, rising."""
    return np.unique(samples.cxr_row[samples.cxr_row >= 0])


def _index_of(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return where each row is among some rising rows; -1 stays."""
    return np.where(row >= 0, np.searchsorted(rows, row), -1)
