"""Samples of a split: which of them a run reads, and where they lie in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np

from datasets.ranges import concat_ranges
from datasets.schema import (
    LARGEST_IMAGE,
    SAMPLE_COLUMNS,
    SMALLEST_IMAGE,
    SPLITS,
    CXRShape,
    Transforms,
)
from utils.config import neutral, resumable

if TYPE_CHECKING:
    import pandas as pd

    from datasets.store import Store


class SampleSelection(NamedTuple):
    """What a value of --data_pairs selects."""

    ehr: bool  # whether hours are read
    cxr: bool  # whether X-rays are read
    unpaired: bool = False  # whether stays without an X-ray are kept
    every_image: bool = False  # whether every X-ray is a sample


SAMPLE_SELECTIONS: dict[str, SampleSelection] = {
    "paired": SampleSelection(ehr=True, cxr=True),
    "partial": SampleSelection(ehr=True, cxr=True, unpaired=True),
    "ehr": SampleSelection(ehr=True, cxr=False),
    "cxr": SampleSelection(ehr=False, cxr=True),
    "ehr_all": SampleSelection(ehr=True, cxr=False, unpaired=True),
    "cxr_all": SampleSelection(ehr=False, cxr=True, every_image=True),
}


SPLIT_SETTINGS = ("fold", "split_by", "first_test_year")  # settings that choose the splits


@dataclass(frozen=True)
class DataConfig:
    """Which samples of a store are read, and how they come to the model."""

    synonyms: ClassVar = {
        "data": "store",
        "data_dir": "store",
        "dataset": "store",
        "modality": "data_pairs",
        "modalities": "data_pairs",
        "bs": "batch_size",
        "resolution": "image_size",
        "resize": "image_size",
        "augmentation": "transforms_cxr",
        "transforms": "transforms_cxr",
    }

    store: Path = neutral(Path("data/synthetic"))
    """Folder of the store (made by `python -m datasets.extract`)."""
    data_pairs: Literal["paired", "partial", "ehr", "cxr", "ehr_all", "cxr_all"] = "paired"
    """paired: samples that have an X-ray. partial: all samples; one without an X-ray has a record only. ehr,
    cxr: the paired samples, but only this modality is read. ehr_all: all samples, records only. cxr_all: a
    sample per X-ray."""
    fold: str = ""
    """K/N, such as 1/5: instead of the store's split, the test split is the K-th of N parts of the subjects,
    and a tenth of the others are the val split."""
    split_by: Literal["store", "year"] = "store"
    """year: train on early patients and test on late ones, by MIMIC's anchor_year_group; a tenth of the early
    ones are the val split."""
    first_test_year: int = 0
    """For --split_by year: test the patients whose anchor_year_group begins in this year or later; 0: the
    last group with an X-ray, and later ones."""
    data_ratio: float = 1.0
    """Fraction of the training stays without an X-ray to keep, drawn with the run's seed; for partial and
    ehr_all."""
    drop_cxr: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Fractions of the stays with an X-ray that lose it, in the train, val and test split, for partial. They
    are drawn with the run's seed; a larger fraction includes the stays of a smaller one."""
    retrieve_cxr: Literal["recent", "all"] = "recent"
    """X-ray of a sample: the last one before its prediction time, or all of them, each a sample."""
    every_hours: int = 1
    """Decompensation and length-of-stay have a sample per hour: keep those of every n-th hour, in all splits;
    1 keeps all."""
    data_device: Literal["auto", "cpu", "cuda", "disk"] = neutral("auto")
    """Where the data are held while training: GPU memory, memory, or on disk; auto takes the first with
    enough space."""
    batch_size: int = resumable(256)
    """Samples per step, of all GPUs together."""
    image_size: int = 224
    """Side of the square that the image encoder sees, in pixels; 224 is the published."""
    transforms_cxr: Transforms = "simclrv2"
    """Random views of X-rays in training: strong ones with jitter, or those of the supervised baselines."""
    cxr_shape: CXRShape = "auto"
    """Shape of X-rays in views: as taken (kept), or squeezed to a square. auto: in a store of --protocol
    medmod as published, which is square with simclrv2 and kept with supervised; else kept."""

    def __post_init__(self) -> None:
        selection = SAMPLE_SELECTIONS[self.data_pairs]
        if self.batch_size < 1:
            raise ValueError(f"--batch_size must be 1 or more, not {self.batch_size}")
        if not SMALLEST_IMAGE <= self.image_size <= LARGEST_IMAGE:
            allowed = f"{SMALLEST_IMAGE} to {LARGEST_IMAGE} pixels"
            raise ValueError(f"--image_size must be {allowed}, not {self.image_size}")
        self._check_splits()
        if self.every_hours < 1:
            raise ValueError(f"--every_hours must be 1 or more, not {self.every_hours}")
        if not 0 <= self.data_ratio <= 1:
            raise ValueError(f"--data_ratio must be 0 to 1, not {self.data_ratio}")
        if self.data_ratio < 1 and not selection.unpaired:
            raise ValueError(
                f"--data_ratio {self.data_ratio} leaves out samples without an X-ray, and --data_pairs "
                f"{self.data_pairs} has none; use --data_pairs partial or ehr_all"
            )
        if not all(0 <= rate <= 1 for rate in self.drop_cxr):
            raise ValueError(f"--drop_cxr must be three fractions from 0 to 1, not {self.drop_cxr}")
        if any(self.drop_cxr) and self.data_pairs != "partial":
            raise ValueError(
                f"--drop_cxr leaves stays without their X-ray, and --data_pairs {self.data_pairs} does not "
                "keep them beside the others; use --data_pairs partial"
            )
        if self.retrieve_cxr == "all" and not selection.cxr:
            raise ValueError(
                f"--retrieve_cxr all: --data_pairs {self.data_pairs} reads no X-rays; leave it out"
            )

    def squeezes_cxr(self, protocol: str) -> bool:
        """Return whether X-rays of a store of a protocol are squeezed to a square in views."""
        if self.cxr_shape == "auto":
            return protocol == "medmod" and self.transforms_cxr == "simclrv2"
        return self.cxr_shape == "square"

    def _check_splits(self) -> None:
        if self.fold:
            parse_fold(self.fold)
        if self.fold and self.split_by == "year":
            raise ValueError(f"--fold {self.fold} --split_by year: two ways to split; leave out one")
        if self.first_test_year and self.split_by != "year":
            raise ValueError(
                f"--first_test_year {self.first_test_year} is for --split_by year; add that, or leave it out"
            )


def split_label(config: DataConfig) -> str:
    """Return the part of a run's name that tells its splits, "" for those of the store.

    >>> split_label(DataConfig(fold="1/5")), split_label(DataConfig(split_by="year", first_test_year=2014))
    ('fold1of5', 'year2014')
    """
    if config.fold:
        return "fold{}of{}".format(*parse_fold(config.fold))
    return f"year{config.first_test_year or ''}" if config.split_by == "year" else ""


def parse_fold(fold: str) -> tuple[int, int]:
    """Return K and N of a fold K/N.

    Raises:
        ValueError: It is no such fold.

    >>> parse_fold("2/5")
    (2, 5)
    """
    parts = fold.split("/")
    if len(parts) == 2 and all(part.isascii() and part.isdecimal() for part in parts):
        number, count = map(int, parts)
        if 1 <= number <= count and count >= 2:
            return number, count
    raise ValueError(f"--fold {fold} must be K/N with K from 1 to N, and N 2 or more, such as 1/5")


def check_pairs(config: DataConfig) -> None:
    """Check that a pretraining on pairs of record and X-ray can work.

    Raises:
        ValueError: There are no pairs, or none to contrast a pair with.
    """
    selection = SAMPLE_SELECTIONS[config.data_pairs]
    if not (selection.ehr and selection.cxr):
        raise ValueError(
            f"--data_pairs {config.data_pairs} holds no pairs; use --data_pairs paired or partial"
        )
    if config.batch_size < 2:
        raise ValueError("--batch_size 1: a pair is contrasted with the others of its batch; use 2 or more")


@dataclass(frozen=True, eq=False)
class Samples:
    """n samples of a split: where they lie in the store, and what is known of them."""

    subject_id: np.ndarray  # int64 [n]
    stay_id: np.ndarray  # int64 [n]
    offset: np.ndarray  # int64 [n], first row of the stay in hourly.npy
    bins: np.ndarray  # int64 [n], hours that the sample reads from there
    partial_bin_row: np.ndarray  # int64 [n], for Store.read_hours: replaces the last hour (-1: none)
    cxr_row: np.ndarray  # int64 [n], row in cxr.parquet (-1: none)
    end_hours: np.ndarray  # float64 [n], prediction time since ICU admission
    gap_days: np.ndarray  # float32 [n], from the image to the prediction time; NaN without an image
    labels: np.ndarray  # float32 [n, L], targets; NaN where unknown
    raw_labels: np.ndarray  # float64 [n, L], labels as in the listfile; NaN where unknown

    def __len__(self) -> int:
        return len(self.stay_id)

    def take(self, index: np.ndarray | slice) -> Self:
        """Return some of the samples, by their rows or by a mask [n]."""
        return type(self)(**{name: array[index] for name, array in self.arrays().items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, without copies."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class LabeledTask(Protocol):
    """What loading samples needs of a task (tasks.task.Task)."""

    @property
    def name(self) -> str:
        """Return the name of the task."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the columns of the listfile that hold the labels."""

    @property
    def encode(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return what turns labels, float64 [n, L], into targets [n, L]."""


def load_samples(store: Store, task: LabeledTask, split: str, config: DataConfig, seed: int) -> Samples:
    """Load the samples of a split that `config` asks for; `seed` draws which unpaired training samples stay.

    Raises:
        ValueError: The store has no samples of the task, or no sample is left.
    """
    samples = _read_samples(store, task, split)
    selection = SAMPLE_SELECTIONS[config.data_pairs]
    if not len(samples):
        raise ValueError(f"{store.folder}: {task.name} has no {split} sample; the cohort is too small for it")
    samples = _every_nth_hour(samples, config.every_hours)
    samples = drop_cxr(samples, config.drop_cxr[SPLITS.index(split)], seed)
    if not selection.unpaired:
        samples = samples.take(samples.cxr_row >= 0)
    elif split == "train" and config.data_ratio < 1:
        samples = _subsample_unpaired(samples, config.data_ratio, seed)
    if selection.every_image or config.retrieve_cxr == "all":
        samples = _with_every_image(samples, store)
    if not len(samples):
        cure = "use --data_pairs partial, or ehr_all for records alone"
        if not len(store.cxr):
            cure = "the store has none: use --data_pairs ehr_all --fusion ehr, or extract with --mimic_cxr"
        raise ValueError(
            f"{store.folder}: {task.name} has no {split} sample with an X-ray, "
            f"and --data_pairs {config.data_pairs} needs them; {cure}"
        )
    return samples


def _read_samples(store: Store, task: LabeledTask, split: str) -> Samples:
    from datasets.splits import check_disjoint  # with pandas, which --help does not need
    from datasets.store import NO_TEST

    if split == "test" and store.without_test:
        raise ValueError(NO_TEST)
    stays = store.stays(["subject_id", "stay_id", "split", "offset", "length"])
    check_disjoint(stays["subject_id"], stays["split"], store.folder)
    _check_arrays(store, stays)
    rows = _read_rows(store, task, split, stays)
    raw_labels = rows[list(task.labels)].to_numpy(np.float64)
    try:
        targets = task.encode(raw_labels)
    except ValueError as error:
        cure = store.how_to_repair(task.name)
        raise ValueError(f"{store.folder}: {split} labels of {task.name}: {error}; {cure}") from error
    cxr_row, end_hours = rows["cxr_row"].to_numpy(), rows["end_hours"].to_numpy()
    partial_bin_row = rows["partial_bin_row"].to_numpy()
    return Samples(
        subject_id=rows["subject_id"].to_numpy(),
        stay_id=rows["stay_id"].to_numpy(),
        offset=stays["offset"].to_numpy(np.int64)[rows["stay_row"]],
        bins=rows["bins"].to_numpy(),
        partial_bin_row=np.where(
            partial_bin_row >= 0, partial_bin_row + store.first_partial_bin(task.name), -1
        ),
        cxr_row=cxr_row,
        end_hours=end_hours,
        gap_days=_gap_days(store, cxr_row, end_hours),
        labels=targets.astype(np.float32),
        raw_labels=raw_labels,
    )


def _read_rows(store: Store, task: LabeledTask, split: str, stays: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the listfiles whose stay is in a split of the store."""
    import pandas as pd  # which --help does not need

    extracted = stays.assign(split=store.extracted_splits())
    parts = []
    for name in SPLITS if store.other_splits else (split,):
        rows = store.listfile(task.name, name, ["stay_id", *task.labels, *SAMPLE_COLUMNS])
        _check_samples(rows, store, task.name, extracted, name)
        parts.append(rows[stays["split"].to_numpy()[rows["stay_row"]] == split])
    return pd.concat(parts, ignore_index=True)


def _check_arrays(store: Store, stays: pd.DataFrame) -> None:
    """Check that the arrays hold the hours and images that the tables list."""
    cure = "copy the store again from where it was made"
    length = stays["length"]
    hours = length.sum()
    if not len(stays):
        raise ValueError(f"{store.folder}: stays.parquet holds no stay; {cure}")
    if (length < 0).any() or (stays["offset"] != length.cumsum() - length).any():
        raise ValueError(f"{store.folder}: the hours of stays.parquet do not follow one another; {cure}")
    if len(store.hourly) != hours:
        raise ValueError(
            f"{store.folder}: hourly.npy does not hold the {hours} hours of stays.parquet; {cure}"
        )
    _ = store.cxr  # checks that its pixels are those of the images


def _check_samples(rows: pd.DataFrame, store: Store, task: str, stays: pd.DataFrame, split: str) -> None:
    """Check that each sample of a listfile is one of a stay of the split, with hours and an image of it."""

    def require(rule: str, valid: np.ndarray) -> None:
        if not valid.all():
            raise ValueError(
                f"{store.folder}: the listfiles of {task} are not of this store: {np.sum(~valid)} of "
                f"{len(rows)} {split} samples, the first on line {valid.argmin() + 2}, break the rule that "
                f"{rule}; {store.how_to_repair(task)}"
            )

    columns = {name: rows[name].to_numpy() for name in ("stay_id", *SAMPLE_COLUMNS)}
    stay_row, bins, end_hours = columns["stay_row"], columns["bins"], columns["end_hours"]
    require("stay_row is a row of stays.parquet", (stay_row >= 0) & (stay_row < len(stays)))
    stays = stays.take(stay_row)
    require("stay_id is that of the stay", stays["stay_id"].to_numpy() == columns["stay_id"])
    require("subject_id is that of the stay", stays["subject_id"].to_numpy() == columns["subject_id"])
    require(f"the stay is of the {split} split", stays["split"].to_numpy() == split)
    require("bins is 1 to the length of the stay", (bins >= 1) & (bins <= stays["length"].to_numpy()))
    require("end_hours is 0 or later", (end_hours >= 0) & np.isfinite(end_hours))
    partial, partial_bins = columns["partial_bin_row"], store.tasks[task].partial_bins
    is_row = (partial >= -1) & (partial < partial_bins)
    require("partial_bin_row is -1 or a row of partial_bins.npy", is_row)
    cxr_row, stay_of_image = columns["cxr_row"], store.images(["stay_row"])["stay_row"].to_numpy()
    require("cxr_row is -1 or a row of cxr.parquet", (cxr_row >= -1) & (cxr_row < len(stay_of_image)))
    require("the image is of the stay", (cxr_row < 0) | (np.append(stay_of_image, 0)[cxr_row] == stay_row))


def _gap_days(store: Store, cxr_row: np.ndarray, end_hours: np.ndarray) -> np.ndarray:
    hours = np.append(store.images(["hours"])["hours"].to_numpy(), np.nan)  # the last is that of row -1
    days: np.ndarray = np.abs((end_hours - hours[cxr_row]) / 24)
    return days.astype(np.float32)


def drop_cxr(samples: Samples, rate: float, seed: int) -> Samples:
    """Take the X-rays from a fraction `rate` of the stays that have one; `seed` draws which."""
    stays = np.unique(samples.stay_id[samples.cxr_row >= 0])
    chosen = np.random.default_rng(seed).permutation(stays)[: round(rate * len(stays))]
    dropped = np.isin(samples.stay_id, chosen)
    return replace(
        samples,
        cxr_row=np.where(dropped, -1, samples.cxr_row),
        gap_days=np.where(dropped, np.float32(np.nan), samples.gap_days),
    )


def _subsample_unpaired(samples: Samples, ratio: float, seed: int) -> Samples:
    """Keep samples without an X-ray only of a fraction `ratio` of the stays that have such samples."""
    unpaired = samples.cxr_row < 0
    stays = np.unique(samples.stay_id[unpaired])
    kept = np.random.default_rng(seed).permutation(stays)[: round(ratio * len(stays))]
    return samples.take(~unpaired | np.isin(samples.stay_id, kept))


def _every_nth_hour(samples: Samples, every_hours: int) -> Samples:
    """Keep the samples at every n-th hour of an hourly task."""
    return samples.take(samples.end_hours % every_hours == 0) if is_hourly(samples) else samples


def is_hourly(samples: Samples) -> bool:
    """Return whether samples are those of an hourly task: several times of a stay, all on the hour."""
    order = np.lexsort((samples.end_hours, samples.stay_id))
    stay, hours = samples.stay_id[order], samples.end_hours[order]
    several = (stay[1:] == stay[:-1]) & (hours[1:] != hours[:-1])
    return bool(several.any() and np.all(hours % 1 == 0))


def _with_every_image(samples: Samples, store: Store) -> Samples:
    """Repeat each sample for each earlier image of its stay, unless the task is about one image."""
    if not len(samples) or np.all(samples.gap_days < 1 / 86400):
        return samples
    stay_row = store.images(["stay_row"])["stay_row"].to_numpy()
    paired = samples.cxr_row >= 0
    first = samples.cxr_row.copy()
    first[paired] = np.searchsorted(stay_row, stay_row[samples.cxr_row[paired]])
    row, image = concat_ranges(first, samples.cxr_row - first + 1)
    repeated = samples.take(row)
    return replace(repeated, cxr_row=image, gap_days=_gap_days(store, image, repeated.end_hours))
