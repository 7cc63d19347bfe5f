"""The store: a folder of stays, hours, X-rays and samples that training opens and reads by index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml
from pyarrow import csv

from datasets.schema import CHANNELS, SAMPLE_COLUMNS, STORE_VERSION, continuous_channels, variables

MANIFEST = "manifest.yaml"


class Described(TypedDict):
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def described(path: Path) -> Described:
    """Reads a file whole, some at a time, for what the manifest says of it."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


@dataclass(frozen=True)
class Store:
    """A store on disk, as `python -m datasets.extract` writes it; opening one reads its manifest alone."""

    folder: Path
    manifest: dict[str, object]

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
            path = folder / name
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
        return described(self.folder / MANIFEST)["sha256"]

    @cached_property
    def hourly(self) -> np.ndarray:
        """[rows, 76] float32, memory-mapped, raw units: the grids of all stays, then ends of samples."""
        return _mapped(self.folder / "hourly.npy")

    @cached_property
    def cxr(self) -> np.ndarray:
        """[images, 256, 256] uint8, memory-mapped."""
        return _mapped(self.folder / "cxr.npy")

    def stays(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a stay; all columns, or the named ones."""
        return _read_table(self.folder / "stays.parquet", columns)

    def images(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row an X-ray, ordered by (stay_row, hours); all columns, or the named ones."""
        return _read_table(self.folder / "cxr.parquet", columns)

    def listfile(self, task: str, split: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a sample of a task in "train", "val" or "test"; an unknown label is NaN.

        Raises:
            ValueError: the store has no such listfile, or it lacks a column.
        """
        path = self.folder / task / f"{split}_listfile.csv"
        if not path.is_file():
            tasks = ", ".join(sorted(found.parent.name for found in self.folder.glob("*/train_listfile.csv")))
            raise ValueError(f"{path} is missing; the tasks of this store are: {tasks}")
        try:
            table = csv.read_csv(path, convert_options=csv.ConvertOptions(include_columns=columns))
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise ValueError(f"{path}: {error}; if an older version made it, extract again") from error
        untyped = [field.name for field in table.schema if pa.types.is_null(field.type)]
        whole = ("stay_id", *SAMPLE_COLUMNS[1:])
        return table.to_pandas().astype({name: "int64" if name in whole else "float64" for name in untyped})

    def normalizer(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the train split, float32 [76] each; 0 and 1 on the other channels.

        Raises:
            ValueError: the file names other channels than this code has.
        """
        path = self.folder / "normalizer.json"
        fitted = json.loads(path.read_text())
        names = [variable.name for variable in variables() if not variable.categories]
        if fitted["channels"] != names:
            raise ValueError(f"{path} is for the channels {fitted['channels']}, not {names}; extract again")
        mean, deviation = np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32)
        mean[list(continuous_channels())] = fitted["mean"]
        deviation[list(continuous_channels())] = fitted["std"]
        return mean, deviation


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
    manifest = yaml.safe_load(path.read_text())
    version = manifest.get("store_version") if isinstance(manifest, dict) else None
    if version != STORE_VERSION:
        raise ValueError(
            f"{path}: the store has version {version}, this code reads {STORE_VERSION}; extract again"
        )
    return manifest


def _mapped(path: Path) -> np.ndarray:
    """A .npy file as a plain array whose pages are read when they are touched."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _read_table(path: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    return pd.read_parquet(path, columns=None if columns is None else list(columns))
