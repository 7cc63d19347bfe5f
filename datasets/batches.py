"""Batches by index alone: in memory, memory-mapped or on the GPU; seeded, rank-aware, resumable."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from datasets.augment import Transforms, Views, centre_view, random_views, warp
from datasets.schema import CHANNELS, IMAGE_SIZE, SAMPLE_COLUMNS, Batch
from datasets.splits import check_disjoint
from datasets.store import Store
from utils.config import resumable
from utils.distributed import Process

Residence = Literal["cuda", "cpu", "disk"]

AHEAD = 2  # batches made while the model computes
READERS = 4  # threads that wait for a disk; one is enough for what lies in memory
ROWS_AT_ONCE = 1 << 18  # hours normalised at once when they are brought into memory (80 MB)
GPU_SHARE, MEMORY_SHARE = 0.35, 0.5  # of what is free, that `auto` lets the data take
ORDER, VIEWS = 0, 1  # what a random stream of an epoch is for
SMALLEST_IMAGE = 32


class SampleSelection(NamedTuple):
    """What a choice of --data_pairs reads, and whether stays without an X-ray and all X-rays are samples."""

    ehr: bool
    cxr: bool
    unpaired: bool = False
    every_image: bool = False


SAMPLE_SELECTIONS: dict[str, SampleSelection] = {
    "paired": SampleSelection(ehr=True, cxr=True),
    "partial": SampleSelection(ehr=True, cxr=True, unpaired=True),
    "ehr": SampleSelection(ehr=True, cxr=False),
    "cxr": SampleSelection(ehr=False, cxr=True),
    "ehr_all": SampleSelection(ehr=True, cxr=False, unpaired=True),
    "cxr_all": SampleSelection(ehr=False, cxr=True, every_image=True),
}


@dataclass(frozen=True)
class DataConfig:
    """Which samples of a store are read, and how they come to the model."""

    store: Path = resumable(Path("data/synthetic"))
    """Folder of the store (made by `python -m datasets.extract`)."""
    data_pairs: Literal["paired", "partial", "ehr", "cxr", "ehr_all", "cxr_all"] = "paired"
    """Samples: paired have both modalities; partial are all, with an X-ray where there is one; ehr and cxr
    are one modality of the paired; ehr_all are all stays, cxr_all all X-rays."""
    data_ratio: float = 1.0
    """Share of the train stays with unpaired samples to keep these of, drawn with the run's seed; for partial
    and ehr_all."""
    retrieve_cxr: Literal["recent", "all"] = "recent"
    """X-ray of a sample: the last one before its prediction time, or all of them, each a sample."""
    every_hours: int = 1
    """Of decompensation and length-of-stay, which have a sample an hour, keep those of every n-th hour, in
    all splits; 1 keeps all."""
    data_device: Literal["auto", "cpu", "cuda", "disk"] = resumable("auto")
    """Where the data lie while training: GPU memory, memory, or on disk; auto looks what has room."""
    batch_size: int = resumable(256)
    """Samples a step, of all GPUs together."""
    image_size: int = 224
    """Side of the square that the image encoder sees, in pixels; 224 is the published."""
    transforms_cxr: Transforms = "simclrv2"
    """Random views of X-rays in training: strong ones with jitter, or those of the supervised baselines."""

    def __post_init__(self) -> None:
        """ValueError, naming the flag, for a value that cannot work or would do nothing."""
        pairs = SAMPLE_SELECTIONS[self.data_pairs]
        if self.batch_size < 1:
            raise ValueError(f"--batch_size must be 1 or more, not {self.batch_size}")
        if not SMALLEST_IMAGE <= self.image_size <= 4 * IMAGE_SIZE:
            raise ValueError(
                f"--image_size must be {SMALLEST_IMAGE} to {4 * IMAGE_SIZE} pixels, not {self.image_size}"
            )
        if self.every_hours < 1:
            raise ValueError(f"--every_hours must be 1 or more, not {self.every_hours}")
        if not 0 <= self.data_ratio <= 1:
            raise ValueError(f"--data_ratio must be 0 to 1, not {self.data_ratio}")
        if self.data_ratio < 1 and not pairs.unpaired:
            raise ValueError(
                f"--data_ratio {self.data_ratio} thins out unpaired samples, and --data_pairs "
                f"{self.data_pairs} has none; use --data_pairs partial or ehr_all"
            )
        if self.retrieve_cxr == "all" and not pairs.cxr:
            raise ValueError(
                f"--retrieve_cxr all chooses X-rays, and --data_pairs {self.data_pairs} reads none; "
                "leave it out"
            )


@dataclass(frozen=True, eq=False)
class Samples:
    """Where n samples of a split lie in the store, and what is known of them; arrays of n rows each.

    subject_id, stay_id: int64; offset, bins, tail_row, cxr_row: int64, as in the store (-1: none); end_hours:
    float64, prediction time since ICU admission; gap_days: float32, from the image to the prediction time,
    NaN without image; labels: float32 [n, L], targets; raw_labels: float64 [n, L], as in the listfile. NaN
    labels are unknown.
    """

    subject_id: np.ndarray
    stay_id: np.ndarray
    offset: np.ndarray
    bins: np.ndarray
    tail_row: np.ndarray
    cxr_row: np.ndarray
    end_hours: np.ndarray
    gap_days: np.ndarray
    labels: np.ndarray
    raw_labels: np.ndarray

    def __len__(self) -> int:
        return len(self.stay_id)

    def take(self, index: np.ndarray | slice) -> Self:
        """Some of the samples: by their places, or by a mask [n]."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


def load_samples(
    store: Store,
    task_name: str,
    labels: Sequence[str],
    encode: Callable[[np.ndarray], np.ndarray],
    split: str,
    config: DataConfig,
    seed: int,
) -> Samples:
    """The samples of a task's split that `config` asks for, in the listfile's order.

    `labels` are columns of the listfile; `encode` turns them, float64 [n, L], into targets [n, L]. `seed`
    draws which unpaired train samples stay.

    Raises:
        ValueError: the store has no such task, or no sample is left.
    """
    samples = _read_samples(store, task_name, labels, encode, split)
    pairs = SAMPLE_SELECTIONS[config.data_pairs]
    if not len(samples):
        raise ValueError(f"{store.folder}: {task_name} has no {split} sample; the cohort is too small for it")
    samples = _thinned(samples, config.every_hours)
    if not pairs.unpaired:
        samples = samples.take(samples.cxr_row >= 0)
    elif split == "train" and config.data_ratio < 1:
        samples = samples.take(_kept(samples.stay_id, samples.cxr_row < 0, config.data_ratio, seed))
    if pairs.every_image or config.retrieve_cxr == "all":
        samples = _with_every_image(samples, store)
    if not len(samples):
        cure = "extract with --mimic_cxr" if not len(store.cxr) else "use --data_pairs partial or ehr_all"
        raise ValueError(
            f"{store.folder}: {task_name} has no {split} sample with an X-ray, "
            f"and --data_pairs {config.data_pairs} needs them; {cure}"
        )
    return samples


def _read_samples(
    store: Store, task: str, labels: Sequence[str], encode: Callable[[np.ndarray], np.ndarray], split: str
) -> Samples:
    rows = store.listfile(task, split, ["stay_id", *labels, *SAMPLE_COLUMNS])
    foreign = _foreign(rows, store, split)
    if foreign.any():
        raise ValueError(
            f"{store.folder}: the listfiles of {task} are not of this store: {foreign.sum()} of {len(rows)} "
            f"{split} samples, the first on line {foreign.argmax() + 2}, are not those of its {split} stays; "
            "copy the store again from where it was made, or extract again"
        )
    raw = rows[list(labels)].to_numpy(np.float64)
    try:
        encoded = encode(raw)
    except ValueError as error:
        raise ValueError(f"{store.folder}: {split} labels of {task}: {error}; extract again") from error
    stays = store.stays(["subject_id", "offset"]).iloc[rows["stay_row"].to_numpy()]
    cxr_row, end_hours = rows["cxr_row"].to_numpy(), rows["end_hours"].to_numpy()
    return Samples(
        subject_id=stays["subject_id"].to_numpy(np.int64),
        stay_id=rows["stay_id"].to_numpy(),
        offset=stays["offset"].to_numpy(np.int64),
        bins=rows["bins"].to_numpy(),
        tail_row=rows["tail_row"].to_numpy(),
        cxr_row=cxr_row,
        end_hours=end_hours,
        gap_days=_gap_days(store, cxr_row, end_hours),
        labels=encoded.astype(np.float32),
        raw_labels=raw,
    )


def _foreign(rows: pd.DataFrame, store: Store, split: str) -> np.ndarray:
    """Mask [n]: samples of no stay of the split, or that name hours or an image that are not their stay's.

    ValueError if the store's splits share a subject, or its tables and arrays do not belong together.
    """
    stays = store.stays(["subject_id", "stay_id", "split", "offset", "length"])
    images, first_tail = store.images(["stay_row"])["stay_row"].to_numpy(), stays["length"].sum()
    check_disjoint(stays["subject_id"], stays["split"], store.folder)
    _check_lengths(store, stays, len(images))
    row, image, tail = (rows[name].to_numpy() for name in ("stay_row", "cxr_row", "tail_row"))
    outside = (row < 0) | (row >= len(stays)) | (image < -1) | (image >= len(images))
    own = stays.take(np.where(outside, 0, row))
    owner = np.append(images, 0)[np.where(outside, -1, image)]
    return (
        outside
        | (own["stay_id"].to_numpy() != rows["stay_id"].to_numpy())
        | (own["split"].to_numpy() != split)
        | (rows["bins"].to_numpy() < 1)
        | (rows["bins"].to_numpy() > own["length"].to_numpy())
        | ~(rows["end_hours"].to_numpy() >= 0)
        | np.isinf(rows["end_hours"].to_numpy())
        | ((image >= 0) & (owner != row))
        | ((tail != -1) & ((tail < first_tail) | (tail >= len(store.hourly))))
    )


def _check_lengths(store: Store, stays: pd.DataFrame, images: int) -> None:
    """ValueError unless the hours of the stays, and the images, are those that the arrays hold."""
    hours = stays["length"].sum()
    rules = {
        "stays.parquet holds no stay": len(stays) > 0,
        "the hours of stays.parquet do not follow one another": (stays["length"] >= 0).all()
        and (stays["offset"] == stays["length"].cumsum() - stays["length"]).all(),
        f"hourly.npy holds fewer hours than the {hours} of stays.parquet": len(store.hourly) >= hours,
        f"cxr.npy does not hold the {images} images of cxr.parquet": len(store.cxr) == images,
    }
    for fault, right in rules.items():
        if not right:
            raise ValueError(f"{store.folder}: {fault}; copy the store again from where it was made")


def _gap_days(store: Store, cxr_row: np.ndarray, end_hours: np.ndarray) -> np.ndarray:
    hours = np.append(store.images(["hours"])["hours"].to_numpy(), np.nan)  # the last is that of row -1
    return np.abs((end_hours - hours[cxr_row]) / 24).astype(np.float32)


def _kept(stay_id: np.ndarray, droppable: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """Mask [n]: all samples but the droppable ones of the stays that a draw of a share `ratio` leaves out."""
    stays = np.unique(stay_id[droppable])
    kept = np.random.default_rng(seed).permutation(stays)[: round(ratio * len(stays))]
    mask: np.ndarray = ~droppable | np.isin(stay_id, kept)
    return mask


def _thinned(samples: Samples, every_hours: int) -> Samples:
    """The samples at every n-th hour of their stays, if the task has several a stay, each on the hour."""
    hourly = np.all(samples.end_hours % 1 == 0) and len(np.unique(samples.stay_id)) < len(samples)
    return samples.take(samples.end_hours % every_hours == 0) if hourly else samples


def _with_every_image(samples: Samples, store: Store) -> Samples:
    """A row for each image from the stay's first to the sample's own, its last; rows without one stay.

    Samples of a task about images, which all end at theirs, keep that one: another has another label.
    """
    if not len(samples) or np.all(samples.gap_days < 1 / 86400):
        return samples
    stay_row = store.images(["stay_row"])["stay_row"].to_numpy()
    paired = samples.cxr_row >= 0
    first = samples.cxr_row.copy()
    first[paired] = np.searchsorted(stay_row, stay_row[samples.cxr_row[paired]])
    place, image = concat_ranges(first, samples.cxr_row - first + 1)
    found = samples.take(place)
    gaps = _gap_days(store, image, found.end_hours)
    return Samples(**{**_arrays(found), "cxr_row": image, "gap_days": gaps})


def _arrays(samples: Samples) -> dict[str, np.ndarray]:
    return {field.name: getattr(samples, field.name) for field in fields(samples)}


def concat_ranges(start: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of consecutive numbers one after another: which run, and the number.

    >>> [part.tolist() for part in runs(np.array([7, 20]), np.array([2, 3]))]
    [[0, 0, 1, 1, 1], [7, 8, 20, 21, 22]]
    """
    run = np.repeat(np.arange(len(start)), length)
    begun = np.cumsum(length) - length
    return run, np.arange(len(run)) + (start - begun)[run]


class Batches:
    """The batches of a split, an epoch at a time.

    In training an epoch's order is a function of (seed, epoch) and the views of a step one of (seed, epoch,
    step), drawn for the batch of all ranks; in evaluation the order is the samples' and views are central.
    Of every batch each rank takes a contiguous share. Nothing is dropped, repeated or padded, so that the
    last batch may be smaller, and empty on some ranks if it has fewer samples than there are ranks.

    samples: as given; residence: where the data lie ("cuda", "cpu" or "disk").
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
        """Brings the data to where they shall lie. ValueError if that is a GPU and `device` is none."""
        self.samples, self.config, self.device, self.train = samples, config, torch.device(device), train
        self.seed, self.rank, self.world = seed, rank, world
        self.pairs = SAMPLE_SELECTIONS[config.data_pairs]
        none = np.zeros(0, np.int64)
        hours, images = (
            (none, none)
            if config.data_device == "disk"
            else (_needed_hours(samples, self.pairs), _needed_images(samples, self.pairs))
        )
        self.residence = _residence(config.data_device, self.device, hours, images, world)
        self._offset, self._tail_row = samples.offset, samples.tail_row
        self._cxr_row = samples.cxr_row if self.pairs.cxr else np.full_like(samples.cxr_row, -1)
        if self.residence != "disk":  # rows then count within what was brought into memory
            self._offset, self._tail_row = (
                np.searchsorted(hours, r) for r in (samples.offset, samples.tail_row)
            )
            self._tail_row[samples.tail_row < 0] = -1
            self._cxr_row = np.where(self._cxr_row >= 0, np.searchsorted(images, self._cxr_row), -1)
        normalise = _Normaliser(store)
        self._hours = _Rows(store.hourly, hours, self.residence, self.device, normalise)
        self._images = _Rows(store.cxr, images, self.residence, self.device)

    def __len__(self) -> int:
        """Steps of an epoch, on every rank."""
        return -(-len(self.samples) // self.config.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """This rank's share of every batch of an epoch, from step `start` on; close it if you leave early.

        Batches are made ahead by a thread; an error there is raised here.
        """
        order = self._order(epoch)
        ahead: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(READERS if self.residence == "disk" else 1, "batches")
        try:
            for step in range(start, len(self)):
                ahead.append(pool.submit(self._batch, order, epoch, step))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self.samples)
        return self._random(epoch, ORDER).permutation(count) if self.train else np.arange(count)

    def _random(self, epoch: int, *place: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, *place))

    def _batch(self, order: np.ndarray, epoch: int, step: int) -> Batch:
        rows = order[step * self.config.batch_size : (step + 1) * self.config.batch_size]
        mine = np.array_split(np.arange(len(rows)), self.world)[self.rank]
        views = None
        if self.train and self.pairs.cxr:
            random = self._random(epoch, VIEWS, step)
            views = random_views(random, len(rows), self.config.transforms_cxr).take(mine)
        row = rows[mine]
        has_cxr = self._cxr_row[row] >= 0
        return Batch(
            ehr=self._ehr(row) if self.pairs.ehr else None,
            hours=torch.from_numpy(self.samples.bins[row]),
            cxr=self._views(row[has_cxr], views and views.take(has_cxr)) if self.pairs.cxr else None,
            has_ehr=self._told(np.full(len(row), self.pairs.ehr)),
            has_cxr=self._told(has_cxr),
            labels=self._told(self.samples.labels[row]),
            row=torch.from_numpy(row),
            gap_days=self._told(self.samples.gap_days[row]),
        )

    def _told(self, values: np.ndarray) -> Tensor:
        return _to(torch.from_numpy(values), self.device)

    def _ehr(self, row: np.ndarray) -> PackedSequence:
        """The hours of some samples, gathered once, in the order of a packed sequence."""
        bins = self.samples.bins[row]
        longest_first = np.argsort(-bins, kind="stable")
        back = np.empty_like(longest_first)
        back[longest_first] = np.arange(len(row))
        own = row[longest_first]
        where, batch_sizes = packed_rows(self._offset[own], bins[longest_first], self._tail_row[own])
        return PackedSequence(
            self._hours(where),
            torch.from_numpy(batch_sizes),
            self._told(longest_first),
            self._told(back),
        )

    def _views(self, row: np.ndarray, views: Views | None) -> Tensor:
        """[P, 1, S, S]: the X-rays of P samples."""
        images, size = self._images(self._cxr_row[row]), self.config.image_size
        return centre_view(images, size) if views is None else warp(images, views, size)


def load_batches(
    store: Store,
    task_name: str,
    labels: Sequence[str],
    encode: Callable[[np.ndarray], np.ndarray],
    split: str,
    config: DataConfig,
    seed: int,
    process: Process,
) -> Batches:
    """Batches of a split's samples (see `load_samples`); in training shuffled, images by random views."""
    return Batches(
        store,
        load_samples(store, task_name, labels, encode, split, config, seed),
        config,
        seed=seed,
        device=process.device,
        train=split == "train",
        rank=process.rank,
        world=process.world,
    )


def check_pairs(config: DataConfig) -> None:
    """ValueError, with the cure, for settings under which no pair can be told from another.

    >>> check_pairs(DataConfig(data_pairs="ehr"))
    Traceback (most recent call last):
    ...
    ValueError: --data_pairs ehr holds no pairs; use --data_pairs paired or partial
    """
    if not (SAMPLE_SELECTIONS[config.data_pairs].ehr and SAMPLE_SELECTIONS[config.data_pairs].cxr):
        raise ValueError(
            f"--data_pairs {config.data_pairs} holds no pairs; use --data_pairs paired or partial"
        )
    if config.batch_size < 2:
        raise ValueError(f"--batch_size {config.batch_size}: pairs are told from others; use 2 or more")


def packed_rows(offset: np.ndarray, bins: np.ndarray, tail_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the hours of B samples in time-major order, and the number of samples at each hour.

    `bins` must fall; a sample's rows are offset ... offset + bins - 1, the last replaced by a tail_row that
    is not -1.

    >>> [part.tolist() for part in packed_rows(np.array([10, 50]), np.array([3, 1]), np.array([-1, 99]))]
    [[10, 99, 11, 12], [2, 1, 1]]
    """
    longest = bins[0] if len(bins) else 0
    batch_sizes = len(bins) - np.cumsum(np.bincount(bins, minlength=longest + 1))[:longest]
    hour, sample = concat_ranges(np.zeros(longest, np.int64), batch_sizes)
    rows = offset[sample] + hour
    begun = np.cumsum(batch_sizes) - batch_sizes
    cut = np.flatnonzero(tail_row >= 0)
    rows[begun[bins[cut] - 1] + cut] = tail_row[cut]
    return rows, batch_sizes


class _Normaliser:
    """(x - mean) / deviation, in place and in float32: the same bits wherever it happens."""

    def __init__(self, store: Store) -> None:
        self.mean, self.deviation = store.normalizer()
        self.source = store.folder / "hourly.npy"

    def __call__(self, hours: np.ndarray) -> None:
        """ValueError for NaN and infinity, which an LSTM turns into plausible numbers."""
        np.subtract(hours, self.mean, out=hours)
        np.divide(hours, self.deviation, out=hours)
        if not np.isfinite(hours).all():
            raise ValueError(f"{self.source}: holds values that are no finite numbers; extract again")


class _Rows:
    """Rows of a stored array by index, from where they lie to the model's device."""

    def __init__(
        self,
        stored: np.ndarray,
        needed: np.ndarray,
        residence: Residence,
        device: torch.device,
        change: _Normaliser | None = None,
    ) -> None:
        """`needed` rows, in rising order, are brought into memory and changed there, once; or on reading."""
        self.device, self.shape = device, stored.shape[1:]
        self.change = change if residence == "disk" else None
        self.on_gpu: Tensor | None = None
        if residence == "disk":
            self.array = stored
        elif residence == "cpu":
            self.array = np.empty((len(needed), *self.shape), stored.dtype)
            for place, part in _parts(stored, needed, change):
                self.array[place] = part
        else:
            self.on_gpu = torch.empty(
                (len(needed), *self.shape), dtype=_TYPES[stored.dtype.name], device=device
            )
            for place, part in _parts(stored, needed, change):
                self.on_gpu[place] = torch.from_numpy(part).to(device)

    def __call__(self, index: np.ndarray) -> Tensor:
        """[n] -> rows [n, ...] on the device."""
        if self.on_gpu is not None:
            return self.on_gpu.index_select(0, _to(torch.from_numpy(index), self.device))
        gathered = torch.empty(
            (len(index), *self.shape),
            dtype=_TYPES[self.array.dtype.name],
            pin_memory=self.device.type == "cuda",
        )
        if len(index):  # mode: indices come from the store's own listfile, and clip writes without a copy
            np.take(self.array, index, axis=0, out=gathered.numpy(), mode="clip")
        if self.change is not None:
            self.change(gathered.numpy())
        return gathered.to(self.device, non_blocking=True)


_TYPES = {"float32": torch.float32, "uint8": torch.uint8}


def _parts(
    stored: np.ndarray, needed: np.ndarray, change: _Normaliser | None
) -> Iterator[tuple[slice, np.ndarray]]:
    """The needed rows, some at a time, with their place among them."""
    step = max(1, ROWS_AT_ONCE * CHANNELS // max(1, int(np.prod(stored.shape[1:]))))
    for start in range(0, len(needed), step):
        part = stored[needed[start : start + step]]
        if change is not None:
            change(part)
        yield slice(start, start + len(part)), part


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _needed_hours(samples: Samples, pairs: SampleSelection) -> np.ndarray:
    """Rows of hourly.npy that the samples read, each once, in rising order; a stay's are consecutive."""
    if not pairs.ehr:
        return np.zeros(0, np.int64)
    offset, stay = np.unique(samples.offset, return_inverse=True)
    longest = np.zeros(len(offset), np.int64)
    np.maximum.at(longest, stay, samples.bins)
    tails = np.unique(samples.tail_row[samples.tail_row >= 0])
    return np.concatenate([concat_ranges(offset, longest)[1], tails])


def _needed_images(samples: Samples, pairs: SampleSelection) -> np.ndarray:
    """Rows of cxr.npy that the samples read, each once, in rising order."""
    return np.unique(samples.cxr_row[samples.cxr_row >= 0]) if pairs.cxr else np.zeros(0, np.int64)


def _residence(
    wanted: str, device: torch.device, hours: np.ndarray, images: np.ndarray, world: int
) -> Residence:
    """Where the data shall lie; "auto" is the nearest place to the model that has room."""
    if wanted == "cuda" and device.type != "cuda":
        raise ValueError("--data_device cuda needs --device cuda and a GPU; use --data_device cpu or auto")
    if wanted != "auto":
        return wanted
    size = len(hours) * CHANNELS * 4 + len(images) * IMAGE_SIZE**2
    if device.type == "cuda" and size < GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "cuda"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # processes that share this machine's memory
    return "cpu" if size * here < MEMORY_SHARE * _free_memory() else "disk"


def _free_memory() -> int:
    """Bytes of memory that programs can still get; 0 where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
