"""Samples of a split: which of them a run reads, and where they lie in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from datasets.data_config import SAMPLE_SELECTIONS, DataConfig
from datasets.ranges import concat_ranges
from datasets.schema import (
    SAMPLE_COLUMNS,
    SPLITS,
)
from datasets.splits import check_disjoint

if TYPE_CHECKING:
    from datasets.store import Columns, Store


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
    from datasets.store import NO_TEST  # with pyarrow, which --help does not need

    if split == "test" and store.without_test:
        raise ValueError(NO_TEST)
    stays = store.stay_columns(["subject_id", "stay_id", "split", "offset", "length"])
    check_disjoint(stays["subject_id"], stays["split"], store.folder)
    _check_arrays(store, stays)
    rows = _read_rows(store, task, split, stays)
    raw_labels = np.stack([rows[label] for label in task.labels], axis=1).astype(np.float64)
    try:
        targets = task.encode(raw_labels)
    except ValueError as error:
        cure = store.how_to_repair(task.name)
        raise ValueError(f"{store.folder}: {split} labels of {task.name}: {error}; {cure}") from error
    cxr_row, end_hours, partial_bin_row = rows["cxr_row"], rows["end_hours"], rows["partial_bin_row"]
    return Samples(
        subject_id=rows["subject_id"],
        stay_id=rows["stay_id"],
        offset=stays["offset"].astype(np.int64)[rows["stay_row"]],
        bins=rows["bins"],
        partial_bin_row=np.where(
            partial_bin_row >= 0, partial_bin_row + store.first_partial_bin(task.name), -1
        ),
        cxr_row=cxr_row,
        end_hours=end_hours,
        gap_days=_gap_days(store, cxr_row, end_hours),
        labels=targets.astype(np.float32),
        raw_labels=raw_labels,
    )


def _read_rows(store: Store, task: LabeledTask, split: str, stays: Columns) -> Columns:
    """Return the rows of the listfiles whose stay is in a split of the store."""
    extracted = stays | {"split": store.extracted_splits()}
    parts = []
    for name in SPLITS if store.other_splits else (split,):
        rows = store.listfile_columns(task.name, name, ["stay_id", *task.labels, *SAMPLE_COLUMNS])
        _check_samples(rows, store, task.name, extracted, name)
        chosen = stays["split"][rows["stay_row"]] == split
        parts.append({name: column[chosen] for name, column in rows.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_arrays(store: Store, stays: Columns) -> None:
    """Check that the arrays hold the hours and images that the tables list."""
    cure = "copy the store again from where it was made"
    length = stays["length"]
    hours = length.sum()
    if not len(length):
        raise ValueError(f"{store.folder}: stays.parquet holds no stay; {cure}")
    if (length < 0).any() or (stays["offset"] != length.cumsum() - length).any():
        raise ValueError(f"{store.folder}: the hours of stays.parquet do not follow one another; {cure}")
    if len(store.hourly) != hours:
        raise ValueError(
            f"{store.folder}: hourly.npy does not hold the {hours} hours of stays.parquet; {cure}"
        )
    _ = store.cxr  # checks that its pixels are those of the images


def _check_samples(rows: Columns, store: Store, task: str, stays: Columns, split: str) -> None:
    """Check that each sample of a listfile is one of a stay of the split, with hours and an image of it."""

    def require(rule: str, valid: np.ndarray) -> None:
        if not valid.all():
            raise ValueError(
                f"{store.folder}: the listfiles of {task} are not of this store: {np.sum(~valid)} of "
                f"{len(stay_row)} {split} samples, the first on line {valid.argmin() + 2}, break the rule "
                f"that {rule}; {store.how_to_repair(task)}"
            )

    stay_row, bins, end_hours = rows["stay_row"], rows["bins"], rows["end_hours"]
    require("stay_row is a row of stays.parquet", (stay_row >= 0) & (stay_row < len(stays["stay_id"])))
    of_row = {name: column[stay_row] for name, column in stays.items()}
    require("stay_id is that of the stay", of_row["stay_id"] == rows["stay_id"])
    require("subject_id is that of the stay", of_row["subject_id"] == rows["subject_id"])
    require(f"the stay is of the {split} split", of_row["split"] == split)
    require("bins is 1 to the length of the stay", (bins >= 1) & (bins <= of_row["length"]))
    require("end_hours is 0 or later", (end_hours >= 0) & np.isfinite(end_hours))
    partial, partial_bins = rows["partial_bin_row"], store.tasks[task].partial_bins
    is_row = (partial >= -1) & (partial < partial_bins)
    require("partial_bin_row is -1 or a row of partial_bins.npy", is_row)
    cxr_row, stay_of_image = rows["cxr_row"], store.image_columns(["stay_row"])["stay_row"]
    require("cxr_row is -1 or a row of cxr.parquet", (cxr_row >= -1) & (cxr_row < len(stay_of_image)))
    require("the image is of the stay", (cxr_row < 0) | (np.append(stay_of_image, 0)[cxr_row] == stay_row))


def _gap_days(store: Store, cxr_row: np.ndarray, end_hours: np.ndarray) -> np.ndarray:
    hours = np.append(store.image_columns(["hours"])["hours"], np.nan)  # the last is that of row -1
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
    stay_row = store.image_columns(["stay_row"])["stay_row"]
    paired = samples.cxr_row >= 0
    first = samples.cxr_row.copy()
    first[paired] = np.searchsorted(stay_row, stay_row[samples.cxr_row[paired]])
    row, image = concat_ranges(first, samples.cxr_row - first + 1)
    repeated = samples.take(row)
    return replace(repeated, cxr_row=image, gap_days=_gap_days(store, image, repeated.end_hours))
