"""Names and types that the extraction and the training share: store columns, variables and batches."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from utils.yaml_files import load_yaml

if TYPE_CHECKING:  # the extraction needs no torch
    import numpy as np
    from torch import Tensor
    from torch.nn.utils.rnn import PackedSequence

STORE_VERSION = 3
MOST_VARIABLES = 127  # that the tables of events can number
IMAGE_SIZE = 256  # shorter side of a stored X-ray in pixels, unless --image_cache says another
SMALLEST_SIDE = 64  # pixels; a smaller image is not a radiograph
LabTime = Literal["charttime", "storetime"]  # column that is the time of laboratory values
CXRShape = Literal["auto", "kept", "square"]  # of X-rays in views, see datasets.data_config
Transforms = Literal["simclrv2", "supervised"]  # of X-rays in training, see datasets.augment
LARGEST_IMAGE = 1024  # side of a view in pixels
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
# the last bin where the sample ends inside it, and the row of its image in cxr.parquet (-1: none).
SAMPLE_COLUMNS = ("subject_id", "end_hours", "stay_row", "bins", "partial_bin_row", "cxr_row")


class RecordNeeds(NamedTuple):
    """What an encoder needs of a record: the triplets beside the hours; and whether samples share a stay.

    They do if one pass of the encoder over a stay gives the features of all its samples.
    """

    triplets: bool = False
    shares_stays: bool = False


SHARES_STAYS = RecordNeeds(shares_stays=True)  # of an encoder that looks back only


class Triplets(NamedTuple):
    """The observations of some stays, one stay after the other, each in order of time, without padding.

    A sample of the B in a batch reads the first ones of its stay, those until its end.
    """

    hours: Tensor  # float32 [N], since ICU admission
    channel: Tensor  # int64 [N], of the grid: the variable's, or the observed category's
    value: Tensor  # float32 [N], normalised as the hours are; 1 for a category
    first: Tensor  # int64 [B], the first observation of the sample's stay, on the CPU
    counts: Tensor  # int64 [B], observations that the sample reads from there, on the CPU
    end: Tensor  # float32 [B], hours since ICU admission at which the sample ends


class Batch(NamedTuple):
    """One batch of B samples, which together read the hours of S stays and P X-rays.

    Samples whose hours are the beginning of another's share these. A modality that is not read is None, and
    so are triplets that no encoder needs.
    """

    ehr: PackedSequence | None  # float32 [sum of hours, C channels], normalised
    stay: Tensor  # int64 [B], index of the sample's stay among the S
    last: Tensor  # int64 [B], last hour that the sample reads, counted from 0
    hours: Tensor  # int64 [B], number of hours that the sample reads, on the CPU
    cxr: Tensor | None  # float32 [P, 1, S, S] in [0, 1]; or [P, D], features of a frozen encoder
    image: Tensor  # int64 [B], index of the sample's X-ray among the P, -1 without one
    paired: Tensor  # int64 [Q], the Q samples that have an X-ray, rising
    has_ehr: Tensor  # bool [B]
    has_cxr: Tensor  # bool [B]
    labels: Tensor  # float32 [B, L], NaN where unknown
    row: Tensor  # int64 [B], index of the sample in its split
    gap_days: Tensor  # float32 [B], days between image and prediction time, NaN without an image
    triplets: Triplets | None = None


class ImageFeatures(NamedTuple):
    """Features [n, D] of X-rays by a frozen encoder, and their rows in cxr.parquet, int64 [n], rising."""

    rows: np.ndarray
    features: Tensor


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
    unit: str = ""

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
    """Return the variables of channels.yaml in grid order: the 17 of the benchmark, and any added to them.

    Raises:
        ValueError: An entry of the file is not complete or does not fit the others.
    """
    path = RESOURCES / "channels.yaml"
    entries = read_resource(path)
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_VARIABLES:
        raise ValueError(f"{path} must be a list of 1 to {MOST_VARIABLES} variables; see docs/extending.md")
    for number, entry in enumerate(entries, 1):
        if fault := _entry_fault(entry):
            raise ValueError(f"{path}: variable {number} {fault}; see docs/extending.md")
    if twice := [name for name, count in Counter(entry["name"] for entry in entries).items() if count > 1]:
        raise ValueError(f"{path}: {twice[0]} is there twice; remove one")
    first_mask = sum(len(entry.get("categories", [0])) for entry in entries)
    channel = 0
    result = []
    for index, entry in enumerate(entries):
        categories = tuple(entry.get("categories", ()))
        shape = entry["name"], entry["normal"], categories, channel, first_mask + index
        variable = Variable(*shape, unit=entry.get("unit", ""))
        channel += variable.width
        result.append(variable)
    return tuple(result)


def read_resource(path: Path) -> object:
    """Read a YAML file of this package, which users may edit; ValueError if it is not valid YAML."""
    return load_yaml(path.read_bytes(), str(path))


def _entry_fault(entry: object) -> str:
    """Return what is wrong with an entry of channels.yaml, "" if nothing is."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return "needs a name"
    if unknown := entry.keys() - {"name", "normal", "categories", "unit"}:
        return f"({entry['name']}) has the unknown key {min(map(str, unknown))}"
    categories, normal = entry.get("categories"), entry.get("normal")
    if categories is None:
        is_number = isinstance(normal, int | float) and not isinstance(normal, bool) and math.isfinite(normal)
        return "" if is_number else f"({entry['name']}) needs a number as its normal value, not {normal!r}"
    if not isinstance(categories, list) or not categories or not all(isinstance(c, str) for c in categories):
        return f"({entry['name']}) needs a list of texts as its categories (put numbers in quotes)"
    return "" if normal in categories else f"({entry['name']}) has no category {normal!r}, its normal value"


@cache
def channel_count() -> int:
    """Return the number of channels of the grid: the values of all variables, and a mask for each.

    >>> channel_count() == variables()[-1].mask_channel + 1
    True
    """
    return variables()[-1].mask_channel + 1


@cache
def continuous_channels() -> tuple[int, ...]:
    """Return the channels that are normalised: the continuous values, in grid order."""
    return tuple(v.first_channel for v in variables() if not v.categories)


def grid_layout() -> list[dict[str, object]]:
    """Return name, normal value and categories of each variable, as stores and checkpoints record them."""
    return [{"name": v.name, "normal": v.normal, "categories": list(v.categories)} for v in variables()]


def layout_difference(recorded: object) -> str:
    """Return how the variables that something was made with differ from those of channels.yaml, "" if equal.

    >>> layout_difference(grid_layout()[1:])
    'without Capillary refill rate, unlike datasets/resources/channels.yaml'
    """
    current = grid_layout()
    if recorded == current:
        return ""
    entries = recorded if isinstance(recorded, list) else []
    names = [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]
    known = [variable.name for variable in variables()]
    more, fewer = (", ".join(n for n in a if n not in b) for a, b in ((names, known), (known, names)))
    found = [f"with {more}"] * bool(more) + [f"without {fewer}"] * bool(fewer)
    difference = " and ".join(found) or "with another order, categories or normal values of the variables"
    return f"{difference}, unlike datasets/resources/channels.yaml"
