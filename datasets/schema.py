"""Names and types that the extraction and the training share: store columns, variables and batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

if TYPE_CHECKING:  # the extraction needs no torch
    from torch import Tensor
    from torch.nn.utils.rnn import PackedSequence

STORE_VERSION = 2
CHANNELS = 76
IMAGE_SIZE = 256  # side of a stored X-ray, in pixels
SMALLEST_IMAGE = 32  # that an encoder can read: every backbone halves the image five times
SPLITS = ("train", "val", "test")
RESOURCES = Path(__file__).parent / "resources"
SYNTHETIC_MARKER = "SYNTHETIC"  # a file of this name in a raw folder says that it holds no real records

# CheXpert's fourteen observations in the order of the release's columns; also the radiology task's labels.
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
    "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
    "Pneumothorax", "Support Devices",
)  # fmt: skip

# Columns of a listfile after the labels: the subject, the prediction time in hours since ICU admission, the
# stay's row in stays.parquet, the number of hourly bins, the row of the task's partial_bins.npy that replaces
# the last bin where the sample ends inside it, and the row of its image in cxr.npy (-1: none).
SAMPLE_COLUMNS = ("subject_id", "end_hours", "stay_row", "bins", "partial_bin_row", "cxr_row")


class Batch(NamedTuple):
    """One batch of B samples, P of which have an X-ray. A modality that is not read is None."""

    ehr: PackedSequence | None  # float32 [sum of hours, 76], normalised
    hours: Tensor  # int64 [B], on the CPU
    cxr: Tensor | None  # float32 [P, 1, S, S] in [0, 1], in the order of the samples that have an image
    has_ehr: Tensor  # bool [B]
    has_cxr: Tensor  # bool [B]
    labels: Tensor  # float32 [B, L], NaN where unknown
    row: Tensor  # int64 [B], index of the sample in its split
    gap_days: Tensor  # float32 [B], days between image and prediction time, NaN without an image


class PrefixBatch(NamedTuple):
    """The hours of S stays, and n samples, each of which reads a prefix of one stay."""

    ehr: PackedSequence  # float32 [sum of hours, 76], normalised
    stay: Tensor  # int64 [n], index of the sample's stay among the S
    last: Tensor  # int64 [n], last hour that the sample reads, counted from 0
    row: Tensor  # int64 [n], index of the sample in its split


class FeatureBatch(NamedTuple):
    """Features [B, D], float32, instead of a batch's modalities; labels [B, L] and row [B] as in Batch."""

    features: Tensor
    labels: Tensor
    row: Tensor


@dataclass(frozen=True)
class Variable:
    """One clinical variable: its channels in the grid, and its value before the first observation."""

    name: str
    normal: float | str
    categories: tuple[str, ...]
    first_channel: int
    mask_channel: int

    @property
    def width(self) -> int:
        """The number of value channels: 1, or one per category."""
        return len(self.categories) or 1

    @property
    def normal_code(self) -> float:
        """The normal value as stored in events: a number, or the slot of the category."""
        return float(self.categories.index(self.normal)) if self.categories else float(self.normal)


@cache
def variables() -> tuple[Variable, ...]:
    """Return the 17 variables in grid order.

    >>> len(variables()), variables()[-1].mask_channel
    (17, 75)
    """
    entries = yaml.safe_load((RESOURCES / "channels.yaml").read_text())
    first_mask = sum(len(entry.get("categories", [0])) for entry in entries)
    channel = 0
    result = []
    for index, entry in enumerate(entries):
        categories = tuple(entry.get("categories", ()))
        variable = Variable(entry["name"], entry["normal"], categories, channel, first_mask + index)
        channel += variable.width
        result.append(variable)
    return tuple(result)


@cache
def continuous_channels() -> tuple[int, ...]:
    """Return the channels that are normalised: the 12 continuous values, in grid order."""
    return tuple(v.first_channel for v in variables() if not v.categories)
