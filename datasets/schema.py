"""Names and types of everything that the extraction writes and the training reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

if TYPE_CHECKING:  # the extraction needs no torch
    from torch import Tensor
    from torch.nn.utils.rnn import PackedSequence

STORE_VERSION = 1
CHANNELS = 76
IMAGE_SIZE = 256
SPLITS = ("train", "val", "test")
RESOURCES = Path(__file__).parent / "resources"
SYNTHETIC_MARKER = "SYNTHETIC"  # a file of this name in a raw folder says that it holds no real records

# CheXpert's fourteen observations in the order of the release's columns; also the labels of the radiology
# task.
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
    "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
    "Pneumothorax", "Support Devices",
)  # fmt: skip

# What a listfile says of a sample behind its labels: the prediction time in hours since ICU admission, the
# stay's row in stays.parquet, the sample's number of hourly bins, and the rows of hourly.npy and cxr.npy that
# end it (-1: none).
SAMPLE_COLUMNS = ("end_hours", "stay_row", "bins", "tail_row", "cxr_row")


class Batch(NamedTuple):
    """One batch of B samples; `P` of them have an X-ray. A modality that was not asked for is None.

    ehr: packed float32 [sum of hours, 76], normalised; hours: int64 [B], on the CPU; cxr: float32 [P, 1, S,
    S] in [0, 1], the views of the samples that have an image, in their order; has_ehr, has_cxr: bool [B];
    labels: float32 [B, L], NaN where unknown; row: int64 [B], the sample's place in its split; gap_days:
    float32 [B], days between the image and the prediction time, NaN without an image.
    """

    ehr: PackedSequence | None
    hours: Tensor
    cxr: Tensor | None
    has_ehr: Tensor
    has_cxr: Tensor
    labels: Tensor
    row: Tensor
    gap_days: Tensor


class PrefixBatch(NamedTuple):
    """The records of S stays, and n samples of which each reads the first hours of one of them.

    ehr: packed float32 [sum of hours, 76], normalised; stay: int64 [n], the sample's stay among the S; last:
    int64 [n], the last hour that it reads, from 0; row: int64 [n], the sample's place among all.
    """

    ehr: PackedSequence
    stay: Tensor
    last: Tensor
    row: Tensor


class FeatureBatch(NamedTuple):
    """Features [B, D] float32 in place of the modalities of a Batch; labels [B, L] and row [B] as there."""

    features: Tensor
    labels: Tensor
    row: Tensor


@dataclass(frozen=True)
class Variable:
    """One clinical variable: its channels in the grid and the value that stands before its first
    observation.
    """

    name: str
    normal: float | str
    categories: tuple[str, ...]
    first_channel: int
    mask_channel: int

    @property
    def width(self) -> int:
        """Number of value channels: 1, or one per category."""
        return len(self.categories) or 1

    @property
    def normal_code(self) -> float:
        """The normal value as stored in events: a number, or the slot of the category."""
        return float(self.categories.index(self.normal)) if self.categories else float(self.normal)


@cache
def variables() -> tuple[Variable, ...]:
    """The 17 variables in grid order.

    >>> len(variables()), variables()[-1].mask_channel
    (17, 75)
    """
    rows = yaml.safe_load((RESOURCES / "channels.yaml").read_text())
    found, channel, values = [], 0, sum(len(row.get("categories", [0])) for row in rows)
    for place, row in enumerate(rows):
        found.append(
            Variable(row["name"], row["normal"], tuple(row.get("categories", ())), channel, values + place)
        )
        channel += found[-1].width
    return tuple(found)


@cache
def continuous_channels() -> tuple[int, ...]:
    """Channels that are normalised: the 12 continuous values, in grid order."""
    return tuple(v.first_channel for v in variables() if not v.categories)
