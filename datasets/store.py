"""The store: a folder of stays, hours, X-rays and samples that training opens and reads by index."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from datasets.schema import (
    CHANNELS,
    IMAGE_SIZE,
    SAMPLE_COLUMNS,
    STORE_VERSION,
    continuous_channels,
    variables,
)
from utils.config import load_yaml
from utils.files import sha256

MANIFEST = "manifest.yaml"
AGAIN = "copy it again from where the store was made, or extract again"
# Columns of tables and listfiles that count or name, and those that measure.
INTEGER_COLUMNS = ("subject_id", "stay_id", "offset", "length", *SAMPLE_COLUMNS[1:])
FLOAT_COLUMNS = ("hours", "los_hours")
HASHED_BYTES = 1 << 26  # larger files take too long to hash at each start: see datasets.verify


class Described(TypedDict):
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def file_digest(path: Path) -> Described:
    """Reads a file whole, some at a time, for what the manifest says of it."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


@dataclass(frozen=True)
class Store:
    """A store on disk, as `python -m datasets.extract` writes it; opening one reads its manifest alone."""

    folder: Path
    manifest: dict[str, object]
    _checked: set[Path] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a finished store.

        Raises:
            ValueError: the folder is missing or unfinished, another version wrote it, or a file of it is
                missing or was changed.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        for name, told in manifest["files"].items():
            path = _inside(folder, name)
            if not path.is_file():
                raise ValueError(f"{path} is missing; copy it from where {folder} was made, or extract again")
            if path.stat().st_size != told["bytes"]:
                raise ValueError(
                    f"{path} has {path.stat().st_size} bytes where the manifest says {told['bytes']}: "
                    f"it was cut or changed; copy it again from where {folder} was made, or extract again"
                )
        return cls(folder, manifest)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest, which holds that of every file: equal for equal content, 64 characters."""
        return file_digest(self.folder / MANIFEST)["sha256"]

    @property
    def data_description(self) -> str:
        """Whose data these are: "real data", "real records with synthetic X-rays" or "synthetic data"."""
        if self.manifest["synthetic"]:
            return "synthetic data"
        return "real records with synthetic X-rays" if self.manifest["synthetic_images"] else "real data"

    @cached_property
    def hourly(self) -> np.ndarray:
        """[rows, 76] float32, memory-mapped, raw units: the grids of all stays, then ends of samples."""
        return self._mapped("hourly.npy", np.float32, (CHANNELS,))

    @cached_property
    def cxr(self) -> np.ndarray:
        """[images, 256, 256] uint8, memory-mapped."""
        return self._mapped("cxr.npy", np.uint8, (IMAGE_SIZE, IMAGE_SIZE))

    def stays(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a stay; all columns, or the named ones."""
        return self._table("stays.parquet", columns)

    def images(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row an X-ray, ordered by (stay_row, hours); all columns, or the named ones."""
        return self._table("cxr.parquet", columns)

    def listfile(self, task: str, split: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a sample of a task in "train", "val" or "test"; an unknown label is NaN.

        Raises:
            ValueError: the store has no such listfile, or it lacks a column.
        """
        path = self.folder / task / f"{split}_listfile.csv"
        if not path.is_file():
            tasks = ", ".join(sorted(found.parent.name for found in self.folder.glob("*/train_listfile.csv")))
            raise ValueError(f"{path} is missing; the tasks of this store are: {tasks}")
        self._check(path)
        whole = dict.fromkeys(INTEGER_COLUMNS, pa.int64())
        options = csv.ConvertOptions(include_columns=columns, column_types=whole)
        try:
            table = csv.read_csv(path, convert_options=options)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            told = re.split(": invalid value|, got", str(error))[0]  # the rest quotes what is in the file
            raise ValueError(f"{path}: {told}; if an older version made it, extract again") from None
        untyped = [field.name for field in table.schema if pa.types.is_null(field.type)]
        found = table.to_pandas().astype({name: "float64" for name in untyped if name not in INTEGER_COLUMNS})
        _check_kinds(path, found, [name for name in found if name != "stay"])
        return found

    def normalizer(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the train split, float32 [76] each; 0 and 1 on the other channels.

        Raises:
            ValueError: the file names other channels than this code has.
        """
        path = self.folder / "normalizer.json"
        self._check(path)
        names = [variable.name for variable in variables() if not variable.categories]
        fitted = _fitted(path, names)
        mean, deviation = np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32)
        mean[list(continuous_channels())] = fitted["mean"]
        deviation[list(continuous_channels())] = fitted["std"]
        return mean, deviation

    def _check(self, path: Path) -> None:
        """ValueError if a file's content is not what the manifest says; seen once, unless it is large."""
        told = self.manifest["files"].get(path.relative_to(self.folder).as_posix())
        if path in self._checked or told is None or told["bytes"] > HASHED_BYTES:
            return
        if file_digest(path)["sha256"] != told["sha256"]:
            raise ValueError(f"{path}: its content is not what the manifest says, only its size; {AGAIN}")
        self._checked.add(path)

    def _mapped(self, name: str, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        """A .npy file as a plain array whose pages are read when they are touched."""
        path = self.folder / name
        self._check(path)
        try:
            array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: no array that can be read ({error}); {AGAIN}") from None
        if array.dtype != kind or array.shape[1:] != shape:
            found = f"{array.dtype} {list(array.shape)}"
            raise ValueError(
                f"{path} holds {found}, not {np.dtype(kind)} [rows, {', '.join(map(str, shape))}]; {AGAIN}"
            )
        return array

    def _table(self, name: str, columns: Sequence[str] | None) -> pd.DataFrame:
        path = self.folder / name
        self._check(path)
        try:
            table = pd.read_parquet(path, columns=None if columns is None else list(columns))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{path}: cannot be read as a table with the columns that are needed "
                f"({type(error).__name__}); {AGAIN}"
            ) from None
        _check_kinds(path, table, FLOAT_COLUMNS)
        return table


def read_manifest(folder: Path) -> dict[str, object]:
    """What a finished store says of itself. ValueError for anything else."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ValueError(
            f"--store {folder}: there is no such folder; make it with python -m datasets.extract"
        )
    if not path.is_file():
        raise ValueError(
            f"--store {folder} has no manifest.yaml: it is no store, or its extraction did not end; "
            f"run python -m datasets.extract --out {folder} again, which goes on where it stopped"
        )
    manifest = load_yaml(path.read_bytes(), str(path))
    version = manifest.get("store_version") if isinstance(manifest, dict) else None
    if version != STORE_VERSION or isinstance(version, bool):
        told = version if isinstance(version, int | str | None) else "of no number"
        raise ValueError(
            f"{path}: the store has version {told}, this code reads {STORE_VERSION}; extract again"
        )
    _check_manifest(manifest, path)
    return manifest


def _check_manifest(manifest: Mapping[str, object], path: Path) -> None:
    """ValueError unless a manifest says what is asked of it."""
    files = manifest.get("files")
    said = {"which files it holds": isinstance(files, dict) and len(files) > 0}
    for name in ("synthetic", "synthetic_images"):
        said[f"whether it is {name}"] = isinstance(manifest.get(name), bool)
    for name, told in (files if isinstance(files, dict) else {}).items():
        known = told if isinstance(told, dict) and isinstance(name, str) else {}
        kinds = isinstance(known.get("bytes"), int), isinstance(known.get("sha256"), str)
        said[f"size and hash of {name}"] = all(kinds)
    for what, is_said in said.items():
        if not is_said:
            raise ValueError(f"{path}: does not say {what}; {AGAIN}")


def _inside(folder: Path, name: str) -> Path:
    """Path of a file of a store. ValueError if its name or a link leads out of it."""
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{folder / MANIFEST}: {name} lies outside of the store, of which nothing else is read; put a "
            "copy of the file there, or extract again"
        )
    return folder / name


def _fitted(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """{"mean", "std"} of a normalizer.json; ValueError if it has not a finite number for each channel."""
    try:
        told = json.loads(path.read_bytes())
        channels = told["channels"]
        found = {key: np.array(told[key], np.float64) for key in ("mean", "std")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no normaliser ({type(error).__name__}); {AGAIN}") from None
    if channels != list(names):
        raise ValueError(f"{path} is for the channels {channels}, not {names}; extract again")
    right = all(array.shape == (len(names),) and np.isfinite(array).all() for array in found.values())
    if not right or (found["std"] <= 0).any():
        raise ValueError(f"{path}: lacks a finite mean, or a positive deviation, of a channel; {AGAIN}")
    return found


def _check_kinds(path: Path, table: pd.DataFrame, numbers: Sequence[str]) -> None:
    """ValueError, naming the column, unless what counts is whole numbers, and what measures is numbers."""
    for name, column in table.items():
        if name in INTEGER_COLUMNS and column.dtype.kind not in "iu":
            raise ValueError(f"{path}: {name} is not a whole number in each row; {AGAIN}")
        if name in numbers and column.dtype.kind not in "iuf":
            raise ValueError(f"{path}: {name} is not a number; {AGAIN}")
