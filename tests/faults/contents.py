"""Compare what a command left in a folder, and check that every file is complete."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image
from torch import Tensor

from utils import checkpoint

TIMES = ("started", "seconds", "samples_per_second")  # columns and entries that differ in every run


def same_bytes(path: Path) -> str:
    """Digest all bytes of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same_rows(path: Path) -> str:
    """Return the rows of a table in their order, without the columns of times."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [column for column, name in enumerate(rows[0]) if name not in TIMES]
    return json.dumps([[row[column] for column in kept] for row in rows])


def same_set_of_rows(path: Path) -> str:
    """Return the sorted lines of a table that several processes write at once."""
    return json.dumps(sorted(path.read_text().splitlines(keepends=True)))


def same_arrays(path: Path) -> str:
    """Digest the arrays of an .npz; the file also holds the time of its writing."""
    with np.load(path, allow_pickle=False) as arrays:
        return json.dumps({name: hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays.files})


def same_state(path: Path) -> str:
    """Digest every bit of the tensors of a checkpoint, and every number except times."""
    digest = hashlib.sha256()
    for line in _leaves(checkpoint.load(path), ""):
        digest.update(line)
    return digest.hexdigest()


def _leaves(value: object, path: str) -> list[bytes]:
    if isinstance(value, dict):
        keys = sorted((key for key in value if key not in TIMES), key=repr)
        return [line for key in keys for line in _leaves(value[key], f"{path}.{key!r}")]
    if isinstance(value, list):
        return [line for key, item in enumerate(value) for line in _leaves(item, f"{path}.{key}")]
    if isinstance(value, Tensor):
        return [f"{path} {value.dtype} {list(value.shape)}".encode(), value.contiguous().numpy().tobytes()]
    return [f"{path} {value!r}".encode()]


def contents(folder: Path, readers: dict[str, Callable[[Path], str]]) -> dict[str, str]:
    """Return {file: content} of the files that match the patterns of `readers`.

    Temporary files of interrupted writes are listed too, since there must be none.
    """
    files = {}
    for pattern, read in readers.items():
        for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
            files[path.relative_to(folder).as_posix()] = read(path)
    partial = {path.relative_to(folder).as_posix() for path in folder.rglob("*.partial")}
    return files | dict.fromkeys(partial, "left over")


def check_complete(folder: Path) -> None:
    """Check that every file is complete, whenever its writer was killed.

    Raises:
        AssertionError: A file is torn.
    """
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in READERS):
        try:
            READERS[path.suffix](path)
        except Exception as error:
            raise AssertionError(f"{path} is torn") from error


def _read_table(path: Path) -> None:
    text = path.read_text()
    assert not text or text.endswith("\n")
    assert len({len(row) for row in csv.reader(text.splitlines())}) < 2


def _read_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


READERS: dict[str, Callable[[Path], object]] = {
    ".ckpt": checkpoint.load,
    ".csv": _read_table,
    ".json": lambda path: json.loads(path.read_text()),
    ".npy": lambda path: np.load(path, mmap_mode="r", allow_pickle=False)[-1:].sum(),
    ".npz": same_arrays,
    ".parquet": lambda path: pq.read_table(path),
    ".png": _read_image,
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
}
