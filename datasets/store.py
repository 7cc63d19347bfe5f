"""The store: a folder of stays, hours, X-rays and samples that training opens and reads by index."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from pydantic import Field, FiniteFloat, StrictBool, StrictInt, TypeAdapter, ValidationError

from datasets.pixels import PackedImages
from datasets.schema import (
    SAMPLE_COLUMNS,
    STORE_VERSION,
    channel_count,
    continuous_channels,
    layout_difference,
    variables,
)
from utils.files import sha256
from utils.yaml_files import load_yaml

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, np.ndarray]  # of a table, by name; without pandas, whose import takes a third of a second
MANIFEST = "manifest.yaml"
WORK = ".work"  # folder in a store that is being written
RAW_FOLDERS = ("icu", "core", "files", "mimic-iv", "mimic-cxr-jpg")  # some of them lie in a raw release
PARTIAL_BINS = "partial_bins.npy"  # of a task
COPY_OR_EXTRACT = "copy it again from where the store was made, or extract again"
INTEGER_COLUMNS = {"subject_id", "stay_id", "events", "offset", "length", *SAMPLE_COLUMNS} - {"end_hours"}
STAYS, IMAGES = "stays.parquet", "cxr.parquet"
SIDES = ("height", "width")  # of images; of a patient, height is a number
FLOAT_COLUMNS = ("hours", "los_hours")
NO_TEST = "settings are chosen on the validation split; a search does not open the test split"
HOURS_AT_ONCE = 1 << 18  # 80 MB of the grid
HASHED_BYTES = 1 << 26  # larger files take too long to hash at each start: see datasets.verify


@dataclass(frozen=True)
class FileDigest:
    """What a manifest says of a file."""

    bytes: StrictInt
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a file, a part at a time."""
        return cls(path.stat().st_size, sha256(path))


@dataclass(frozen=True)
class MEDSNotes:
    """What a manifest says of the MEDS dataset that its store was made from, if it was."""

    refused: dict[str, str] = field(default_factory=dict)  # tasks without samples, and the reason


@dataclass(frozen=True)
class StoreManifest:
    """What readers need of a store's manifest; the file also says of what and with what it was made."""

    store_version: StrictInt
    protocol: Literal["medmod", "corrected"]
    timestep: float
    uncertain: Literal["zeros", "ones", "ignore"]
    synthetic: StrictBool
    synthetic_images: StrictBool
    stays: StrictInt
    images: StrictInt
    hours: StrictInt
    image_cache: Annotated[StrictInt, Field(gt=0)]
    files: dict[str, FileDigest]
    meds: MEDSNotes = field(default_factory=MEDSNotes)
    variables: Any = None  # what `grid_layout` returned; None if it was not recorded


@dataclass(frozen=True)
class SampleCount:
    """Number of samples of a split, and of those that have an X-ray."""

    samples: StrictInt
    with_xray: StrictInt

    def __add__(self, other: SampleCount) -> SampleCount:
        return SampleCount(self.samples + other.samples, self.with_xray + other.with_xray)


@dataclass(frozen=True)
class TaskManifest:
    """What a task's folder says of itself. `store` is the fingerprint of the store it was made from."""

    store: str
    labels: list[str]
    samples: dict[str, SampleCount]
    partial_bins: StrictInt
    files: dict[str, FileDigest]


@dataclass(frozen=True)
class FittedNormalizer:
    """Content of normalizer.json: mean and standard deviation of each continuous channel."""

    channels: list[str]
    mean: list[FiniteFloat]
    std: list[Annotated[FiniteFloat, Field(gt=0)]]


@dataclass(frozen=True, eq=False)
class OtherSplits:
    """Splits other than those of the extraction: what they are called, and that of each stay [stays]."""

    name: str
    of_stays: np.ndarray


@dataclass(frozen=True)
class Store:
    """A store on disk, written by `python -m datasets.extract`; opening it reads only its manifests.

    With `other_splits` (see `datasets.other_splits`), its stays, samples and normaliser are as if it had been
    extracted with these. `without_test`: its test samples cannot be loaded, nor their file be read, unless
    the other splits need that.
    """

    folder: Path
    manifest: StoreManifest
    tasks: Mapping[str, TaskManifest] = field(default_factory=dict)
    other_splits: OtherSplits | None = None
    without_test: bool = False
    _checked: set[Path] = field(default_factory=set, repr=False, compare=False)
    _partial_bins: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a finished store, with all tasks that it has samples of."""
        store = cls.open_without_samples(folder)
        names = sorted(path.parent.name for path in store.folder.glob(f"*/{MANIFEST}"))
        return cls(store.folder, store.manifest, {name: store.read_task(name) for name in names})

    @classmethod
    def open_without_samples(cls, folder: Path | str) -> Self:
        """Open a finished store as the extraction left it, whatever the folders of the tasks hold."""
        folder = Path(folder)
        manifest = read_manifest(folder)
        _check_files(folder, folder, manifest.files, COPY_OR_EXTRACT)
        return cls(folder, manifest)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest, which holds that of every file: equal for equal content, 64 characters."""
        return sha256(self.folder / MANIFEST)

    def fingerprint_of(self, task: str) -> str:
        """Return the SHA-256 of a task's manifest, which holds that of the store and of the task's files."""
        self._manifest_of(task)
        return sha256(self.folder / task / MANIFEST)

    @property
    def data_kind(self) -> Literal["real", "synthetic", "synthetic X-rays"]:
        """Whose data these are; "synthetic X-rays" are attached to real records."""
        if self.manifest.synthetic:
            return "synthetic"
        return "synthetic X-rays" if self.manifest.synthetic_images else "real"

    @property
    def data_description(self) -> str:
        """Whose data these are: "real data", "real records with synthetic X-rays" or "synthetic data"."""
        kind = self.data_kind
        return f"real records with {kind}" if kind == "synthetic X-rays" else f"{kind} data"

    @cached_property
    def hourly(self) -> np.ndarray:
        """[hours, C] float32, memory-mapped, raw units: the grids of all stays, one after the other."""
        return self._mapped("hourly.npy", np.float32, (channel_count(),))

    @cached_property
    def cxr(self) -> PackedImages:
        """All X-rays, memory-mapped.

        Raises:
            ValueError: cxr.npy does not hold as many pixels as cxr.parquet says.
        """
        shape = np.stack([*self.image_columns(SIDES).values()], axis=1).astype(np.int64)
        pixels = self._mapped("cxr.npy", np.uint8, ())
        images = PackedImages(pixels, shape[:, 0], shape[:, 1], self.manifest.image_cache)
        if (shape < 1).any() or images.size.sum() != len(pixels):
            raise ValueError(
                f"{self.folder}: cxr.npy does not hold the {len(shape)} images of cxr.parquet; copy the "
                "store again from where it was made"
            )
        return images

    def partial_bins(self, task: str) -> np.ndarray:
        """Return the last rows of a task's samples that end inside a bin: [n, C], as `hourly`."""
        if task not in self._partial_bins:
            self._manifest_of(task)
            self._partial_bins[task] = self._mapped(f"{task}/{PARTIAL_BINS}", np.float32, (channel_count(),))
        return self._partial_bins[task]

    def first_partial_bin(self, task: str) -> int:
        """Return the number that `read_hours` gives to the first partial bin of a task."""
        before = [manifest.partial_bins for name, manifest in self.tasks.items() if name < task]
        return len(self.hourly) + sum(before)

    def read_hours(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy hours [n] into `out` [n, C]: rows of hourly.npy, and after these the partial bins."""
        if len(rows):
            np.take(self.hourly, rows, axis=0, out=out, mode="clip")  # "clip" needs no buffer beside `out`
        for name, manifest in self.tasks.items():
            if manifest.partial_bins:
                task_rows = rows - self.first_partial_bin(name)
                in_task = np.flatnonzero((task_rows >= 0) & (task_rows < manifest.partial_bins))
                if len(in_task):
                    out[in_task] = self.partial_bins(name)[task_rows[in_task]]

    @property
    def split_name(self) -> str:
        """What the splits are called, such as "fold 1/5"; "" for those of the extraction."""
        return self.other_splits.name if self.other_splits else ""

    def stays(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return a row per stay; all columns, or those named."""
        stays = self._table(STAYS, columns)
        if self.other_splits and "split" in stays:
            stays["split"] = self.other_splits.of_stays
        return stays

    def stay_columns(self, names: Sequence[str]) -> Columns:
        """Return some columns of `stays` [stays]."""
        columns = self._columns(STAYS, names)
        if self.other_splits and "split" in columns:
            columns["split"] = self.other_splits.of_stays
        return columns

    def extracted_splits(self) -> np.ndarray:
        """Return the split of each stay [stays] that the extraction gave it, in whose listfiles it is."""
        return self._columns(STAYS, ["split"])["split"]

    def images(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return a row per X-ray, ordered by (stay_row, hours); all columns, or those named."""
        return self._table(IMAGES, columns)

    def image_columns(self, names: Sequence[str]) -> Columns:
        """Return some columns of `images` [images]."""
        return self._columns(IMAGES, names)

    def diagnoses(self) -> pd.DataFrame:
        """Return stay_id, seq_num, icd_code, icd_version and condition (None for none) of each diagnosis.

        Raises:
            ValueError: The store is of a version that did not keep the codes.
        """
        if "diagnoses.parquet" not in self.manifest.files:
            raise ValueError(
                f"{self.folder} has no diagnoses.parquet: a former version made it; extract again, into "
                "another folder"
            )
        return self._table("diagnoses.parquet", None)

    def events(self, counts: np.ndarray, stays: slice) -> pd.DataFrame:
        """Return stay_row, stay_id, hours, variable (a category) and value of observations, in order of time.

        `counts` is the column `events` of stays.parquet, for all stays; `stays` selects rows of it.
        """
        path = self.folder / "events.parquet"
        self._check(path)
        ends = np.concatenate([[0], np.cumsum(counts)])
        first, last = ends[stays.start], ends[stays.stop]
        with pq.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            group_ends = np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in groups)])
            needed = [group for group in groups if group_ends[group + 1] > first and group_ends[group] < last]
            table = file.read_row_groups(needed, use_threads=False)
        skipped = first - group_ends[needed[0]] if needed else 0
        stay_rows = np.repeat(np.arange(stays.start, stays.stop), counts[stays])
        return table.slice(skipped, last - first).to_pandas().assign(stay_row=stay_rows)

    def listfile(self, task: str, split: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return a row per sample of a task in an extracted split; an unknown label is NaN.

        Raises:
            ValueError: The store has no samples of the task, or a column is missing.
        """
        path, table = self._listfile(task, split, columns)
        untyped = [field.name for field in table.schema if pa.types.is_null(field.type)]
        rows = table.to_pandas().astype({name: "float64" for name in untyped if name not in INTEGER_COLUMNS})
        _check_kinds(path, rows, [name for name in rows if name != "stay"])
        return rows

    def listfile_columns(self, task: str, split: str, names: Sequence[str]) -> Columns:
        """Return some columns of `listfile` [samples], none of them `stay`."""
        path, table = self._listfile(task, split, names)
        columns = _arrays_of(table)
        _check_kinds(path, columns, names)
        return columns

    def _listfile(self, task: str, split: str, columns: Sequence[str] | None) -> tuple[Path, pa.Table]:
        """Read a listfile; return its path, too."""
        self._manifest_of(task)
        if self.without_test and split == "test" and not self.other_splits:
            raise ValueError(NO_TEST)
        path = self.folder / task / listfile_name(split)
        self._check(path)
        integers = dict.fromkeys(INTEGER_COLUMNS, pa.int64())
        options = csv.ConvertOptions(include_columns=columns, column_types=integers)
        try:
            return path, csv.read_csv(path, convert_options=options)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            message = re.split(": invalid value|, got", str(error))[0]  # the rest quotes patient data
            raise ValueError(f"{path}: {message}; {self.how_to_repair(task)}") from None

    def normalizer(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the train split, float32 [C] each; 0 and 1 for categories.

        Raises:
            ValueError: The file has other channels than this code, or not a finite number for each.
        """
        if self.other_splits:
            return self._refitted
        path = self.folder / "normalizer.json"
        self._check(path)
        fitted = _validated(FittedNormalizer, path.read_bytes(), path)
        names = [variable.name for variable in variables() if not variable.categories]
        if fitted.channels != names:
            raise ValueError(f"{path} is for the channels {fitted.channels}, not {names}; extract again")
        if not len(fitted.mean) == len(fitted.std) == len(names):
            raise ValueError(
                f"{path} does not have a mean and a deviation for each channel; {COPY_OR_EXTRACT}"
            )
        return _of_all_channels(fitted.mean, fitted.std)

    @cached_property
    def _refitted(self) -> tuple[np.ndarray, np.ndarray]:
        """Fit the normaliser on the hours of the train split."""
        from datasets.hourly import Normalizer  # with polars, which no other training needs

        stays = self.stays(["split", "length"])
        hours = np.repeat(stays["split"].to_numpy() == "train", stays["length"])
        normalizer = Normalizer.empty()
        for start in range(0, len(hours), HOURS_AT_ONCE):
            part = slice(start, start + HOURS_AT_ONCE)
            normalizer.add(self.hourly[part][hours[part]])
        return _of_all_channels(*normalizer.statistics())

    def read_task(self, task: str) -> TaskManifest:
        """Read the manifest of a task's folder, and check the sizes of its files.

        Raises:
            ValueError: A file is missing or was changed, or the samples were made from another store.
        """
        path = self.folder / task / MANIFEST
        manifest = read_task_manifest(path)
        if manifest.store != self.fingerprint:
            raise ValueError(f"{path.parent}: made from another store; {self.how_to_repair(task)}")
        _check_files(self.folder, path.parent, manifest.files, self.how_to_repair(task))
        return manifest

    def _manifest_of(self, task: str) -> TaskManifest:
        if task not in self.tasks:
            raise ValueError(
                f"{self.folder} has no samples of {task!r}, only of {', '.join(self.tasks) or 'no task'}; "
                f"make them with python -m tasks.samples --store {self.folder} --task {task}"
            )
        return self.tasks[task]

    def how_to_repair(self, task: str) -> str:
        """Return what to do if the folder of a task is damaged, as the end of a message."""
        command = f"python -m tasks.samples --store {self.folder} --task {task}"
        return f"copy it again, or remove {self.folder / task} and run {command}"

    def _check(self, path: Path) -> None:
        """Compare a file with the hash in its manifest, once, unless the file is large."""
        files = self.manifest.files if path.parent == self.folder else self.tasks[path.parent.name].files
        digest = files.get(path.name)
        if path in self._checked or digest is None or digest.bytes > HASHED_BYTES:
            return
        if sha256(path) != digest.sha256:
            raise ValueError(f"{path}: its content is not what the manifest says; {COPY_OR_EXTRACT}")
        self._checked.add(path)

    def _mapped(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        """Open a .npy file as a plain array whose pages are read when they are touched."""
        path = self.folder / name
        self._check(path)
        try:
            array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: no array that can be read ({error}); {COPY_OR_EXTRACT}") from None
        if array.dtype != dtype or array.shape[1:] != shape:
            expected = f"{np.dtype(dtype)} rows of shape {list(shape)}"
            raise ValueError(
                f"{path} holds {array.dtype} {list(array.shape)}, not {expected}; {COPY_OR_EXTRACT}"
            )
        return array

    def _table(self, name: str, columns: Sequence[str] | None) -> pd.DataFrame:
        table: pd.DataFrame = self._arrow_table(name, columns).to_pandas()
        _check_kinds(self.folder / name, table, FLOAT_COLUMNS)
        return table

    def _columns(self, name: str, columns: Sequence[str]) -> Columns:
        arrays = _arrays_of(self._arrow_table(name, columns))
        _check_kinds(self.folder / name, arrays, FLOAT_COLUMNS)
        return arrays

    def _arrow_table(self, name: str, columns: Sequence[str] | None) -> pa.Table:
        path = self.folder / name
        self._check(path)
        try:
            with pq.ParquetFile(path) as file:  # `read_table` imports pandas
                if missing := set(columns or ()) - set(file.schema_arrow.names):
                    raise pa.ArrowKeyError(min(missing))  # which `read` leaves out
                return file.read(None if columns is None else list(columns))
        except (pa.ArrowException, OSError) as error:
            fault = f"cannot be read as a table with the needed columns ({type(error).__name__})"
            raise ValueError(f"{path}: {fault}; {COPY_OR_EXTRACT}") from None


def _arrays_of(table: pa.Table) -> Columns:
    """Return the columns of a table as pandas would hold them: a missing number is NaN."""
    return {name: _array_of(table[name]) for name in table.column_names}


def _array_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as an array; PyArrow's `to_numpy` imports pandas, and is called for missing numbers."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=object)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.asarray(column.to_numpy())
    return np.from_dlpack(column.combine_chunks()).copy()


def _of_all_channels(
    mean: Sequence[float] | np.ndarray, deviation: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation, float32 [C], of all channels: 0 and 1 for those that are not continuous."""
    means, deviations = np.zeros(channel_count(), np.float32), np.ones(channel_count(), np.float32)
    means[list(continuous_channels())] = mean
    deviations[list(continuous_channels())] = deviation
    return means, deviations


def listfile_name(split: str) -> str:
    """Return the name of a split's listfile in the folder of a task."""
    return f"{split}_listfile.csv"


def read_manifest(folder: Path) -> StoreManifest:
    """Read the manifest of a finished store.

    Raises:
        ValueError: The folder is no finished store of this version, or one with other variables.
    """
    if not folder.is_dir():
        raise ValueError(
            f"--store {folder}: there is no such folder; make it with python -m datasets.extract"
        )
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / WORK).is_dir():
            raise ValueError(
                f"--store {folder} has no manifest.yaml: its extraction did not end; run the same command, "
                f"python -m datasets.extract ... --out {folder}, again, which goes on where it stopped"
            )
        if any((folder / name).is_dir() for name in RAW_FOLDERS):
            raise ValueError(
                f"--store {folder} is a raw release, not a store; make a store of it in another folder with "
                f"python -m datasets.extract --mimic_iv FOLDER --out data/mimic, and give that"
            )
        raise ValueError(
            f"--store {folder} is not a store: it has no manifest.yaml; give the --out of python -m "
            "datasets.extract"
        )
    manifest = _validated(StoreManifest, read_version(path), path)
    if manifest.variables is not None and (difference := layout_difference(manifest.variables)):
        raise ValueError(
            f"{path}: the store was extracted {difference}; restore that file, or extract again into "
            "another folder"
        )
    return manifest


def read_task_manifest(path: Path) -> TaskManifest:
    """Read the manifest of a task's folder in a store."""
    return _validated(TaskManifest, load_yaml(path.read_bytes(), str(path)), path)


def read_version(path: Path) -> dict[str, Any]:
    """Read a store's manifest as it is, if it is of the version that this code writes.

    Raises:
        ValueError: It is of another version.
    """
    content = load_yaml(path.read_bytes(), str(path))
    mapping = content if isinstance(content, dict) else {}
    version = mapping.get("store_version")
    if version != STORE_VERSION or isinstance(version, bool):
        shown = version if isinstance(version, int | str | None) else "that is not a number"
        raise ValueError(
            f"{path}: the store has version {shown}, this code reads {STORE_VERSION}; "
            "extract again, into another folder"
        )
    return mapping


T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(kind: type[T], content: Any, path: Path) -> T:
    """Return the bytes of a JSON file, or the content of a YAML file, as a dataclass."""
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a type can be hashed
    try:
        return (
            adapter.validate_json(content) if isinstance(content, bytes) else adapter.validate_python(content)
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {name}: {first['msg']}; {COPY_OR_EXTRACT}") from None


def _check_files(root: Path, folder: Path, files: Mapping[str, FileDigest], cure: str) -> None:
    """Check that the files of a manifest are in its folder, inside the store `root`, and have their sizes."""
    for name, digest in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(
                f"{path} of the store {root} lies outside of it, and nothing else is read; {cure}"
            )
        if not path.is_file():
            raise ValueError(f"{path} is missing; {cure}")
        if path.stat().st_size != digest.bytes:
            size = path.stat().st_size
            raise ValueError(f"{path} has {size} bytes where the manifest says {digest.bytes}; {cure}")


def _check_kinds(path: Path, table: pd.DataFrame | Columns, numeric: Sequence[str]) -> None:
    """Check that INTEGER_COLUMNS and the sides of images are integers, and columns of `numeric` numbers."""
    for name, column in table.items():
        is_side = name in SIDES and path.name == IMAGES
        if (is_side or name in INTEGER_COLUMNS) and column.dtype.kind not in "iu":
            raise ValueError(f"{path}: {name} is not a whole number in each row; {COPY_OR_EXTRACT}")
        if name in numeric and column.dtype.kind not in "iuf":
            raise ValueError(f"{path}: {name} is not a number; {COPY_OR_EXTRACT}")
