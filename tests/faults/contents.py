"""What a command left in a folder, in a form that can be compared; and whether all of it is whole."""

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

TIMES = ("started", "seconds", "samples_per_second")  # columns and entries that no run has twice


def same_bytes(path: Path) -> str:
    """A file by all its bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same_rows(path: Path) -> str:
    """A table in its order, without the columns that tell of time."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [place for place, name in enumerate(rows[0]) if name not in TIMES]
    return json.dumps([[row[place] for place in kept] for row in rows])


def same_set_of_rows(path: Path) -> str:
    """The lines of a table that several write to at once, in a fixed order."""
    return json.dumps(sorted(path.read_text().splitlines(keepends=True)))


def same_arrays(path: Path) -> str:
    """An .npz by all bits of its arrays; as a file it holds the time of its writing."""
    with np.load(path, allow_pickle=False) as held:
        return json.dumps({name: hashlib.sha256(held[name].tobytes()).hexdigest() for name in held.files})


def same_state(path: Path) -> str:
    """A checkpoint by every bit of its tensors and every number but seconds."""
    digest = hashlib.sha256()
    for line in _leaves(checkpoint.load(path), ""):
        digest.update(line)
    return digest.hexdigest()


def _leaves(value: object, place: str) -> list[bytes]:
    if isinstance(value, dict):
        keys = sorted((key for key in value if key not in TIMES), key=repr)
        return [line for key in keys for line in _leaves(value[key], f"{place}.{key!r}")]
    if isinstance(value, list):
        return [line for key, item in enumerate(value) for line in _leaves(item, f"{place}.{key}")]
    if isinstance(value, Tensor):
        return [f"{place} {value.dtype} {list(value.shape)}".encode(), value.contiguous().numpy().tobytes()]
    return [f"{place} {value!r}".encode()]


def contents(folder: Path, looks: dict[str, Callable[[Path], str]]) -> dict[str, str]:
    """{file: what it holds} of the files that `looks` names by patterns; and every file that is left over
    from a write: there must be none.
    """
    found = {}
    for pattern, look in looks.items():
        for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
            found[path.relative_to(folder).as_posix()] = look(path)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.partial")}
    return found | dict.fromkeys(left, "left over")


def check_whole(folder: Path) -> None:
    """Fails if a file that stands under its name, at whatever moment its writer was killed, is not whole."""
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in WHOLE):
        try:
            WHOLE[path.suffix](path)
        except Exception as error:
            raise AssertionError(f"{path} is torn") from error


def _whole_table(path: Path) -> None:
    text = path.read_text()
    assert not text or text.endswith("\n")
    assert len({len(row) for row in csv.reader(text.splitlines())}) < 2


def _whole_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


WHOLE: dict[str, Callable[[Path], object]] = {
    ".ckpt": checkpoint.load,
    ".csv": _whole_table,
    ".json": lambda path: json.loads(path.read_text()),
    ".npy": lambda path: np.load(path, mmap_mode="r", allow_pickle=False)[-1:].sum(),
    ".npz": same_arrays,
    ".parquet": lambda path: pq.read_table(path),
    ".png": _whole_image,
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
}
