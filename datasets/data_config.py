"""Settings of the data that a run reads; without NumPy, so that --help need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from datasets.schema import LARGEST_IMAGE, SMALLEST_IMAGE, CXRShape, Transforms
from utils.config import neutral, resumable


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
