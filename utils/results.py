"""Result tables: one line per number, appended whole under a lock, and the predictions behind them."""

from __future__ import annotations

import csv
import fcntl
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.files import NO_SPACE, whole

COLUMNS = (
    "run", "task", "protocol", "fusion", "objective", "checkpoint", "epoch", "split", "seed", "label",
    "metric", "value", "low", "high", "n", "positives", "commit", "started", "seconds",
)  # fmt: skip
PREDICTIONS = ("stay_id", "end_hours", "label", "truth", "probability")


def append(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Adds rows to a results file, all or none; many processes may append to the same file at once.

    A row has keys of COLUMNS; those left out, None and NaN are written empty. The header is written once.
    ValueError for another key, or for a file with other columns; OSError, with nothing changed, if the disk
    is full.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     append(Path(folder) / "a.csv", [{"run": "x", "metric": "auroc", "value": 0.5}])
    ...     append(Path(folder) / "a.csv", [{"run": "y", "metric": "auroc", "value": float("nan")}])
    ...     pd.read_csv(Path(folder) / "a.csv")[["run", "metric", "value"]].values.tolist()
    [['x', 'auroc', 0.5], ['y', 'auroc', nan]]
    """
    append_rows(path, COLUMNS, rows, "choose another --results_dir")


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]], cure: str) -> None:
    """`append` for a file with other columns; `cure` is what to do if the file has others than these."""
    path, lines = Path(path), _lines(columns, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        length = _cut_torn_line(file, path, columns, cure)
        text = lines if length else _line(columns) + lines
        try:
            _write_all(file, text.encode())
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(length)
            if error.errno not in NO_SPACE:
                raise
            cure = "nothing was changed in it; free space there and run the same command again"
            raise OSError(error.errno, f"no space left to write {path} ({error.strerror}); {cure}") from error


def read_rows(path: Path) -> pd.DataFrame:
    """The whole lines of a file that `append_rows` writes; one that a killed writer left torn is not read."""
    whole_lines = Path(path).read_bytes().rpartition(b"\n")[0]
    return pd.read_csv(io.BytesIO(whole_lines)) if whole_lines else pd.DataFrame()


def write_predictions(
    path: Path,
    stay_id: np.ndarray,
    end_hours: np.ndarray,
    labels: Sequence[str],
    truth: np.ndarray,
    probability: np.ndarray,
) -> None:
    """Writes stay_id, end_hours, label, truth, probability, one line per sample and label, atomically.

    `stay_id`, `end_hours` [n]; `truth` [n, L] with NaN where unknown (written empty); `probability` [n, L].
    An ordinal label has truth [n, 1], a bin, and probability [n, K]: it gives K lines, label "name[k]", truth
    1 at its bin. ValueError if the shapes do not fit.
    """
    if truth.shape[1] == 1 and probability.shape[1] > 1:
        labels = [f"{labels[0]}[{k}]" for k in range(probability.shape[1])]
        known = np.where(np.isnan(truth), np.nan, truth == np.arange(probability.shape[1]))
        truth = known.astype(np.float32)
    shape = (len(stay_id), len(labels))
    if not truth.shape == probability.shape == shape or len(end_hours) != len(stay_id):
        raise ValueError(f"{path}: truth {truth.shape}, probability {probability.shape} must both be {shape}")
    names = pd.Categorical.from_codes(np.tile(np.arange(len(labels)), len(stay_id)), list(labels))
    columns = (np.repeat(stay_id, len(labels)), np.repeat(end_hours, len(labels)), names)
    values = (pd.array(truth.ravel()).astype("Int8"), probability.ravel())
    with whole(Path(path)) as partial:
        table = pd.DataFrame(dict(zip(PREDICTIONS, (*columns, *values), strict=True)))
        table.to_csv(partial, index=False)


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    lines = []
    for row in rows:
        unknown = [key for key in row if key not in columns]
        if unknown:
            raise ValueError(f"results have no column {', '.join(unknown)}; they have {', '.join(columns)}")
        lines.append(_line(["" if _empty(row.get(name)) else row[name] for name in columns]))
    return "".join(lines)


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _cut_torn_line(file: io.FileIO, path: Path, columns: Sequence[str], cure: str) -> int:
    """Length in bytes of the whole lines; what a killed writer left behind them is cut off. Checks the
    header."""
    file.seek(0)
    header = file.readline().decode()
    if header.endswith("\n") and next(csv.reader([header])) != list(columns):
        raise ValueError(f"{path}: its columns are not {', '.join(columns)}; {cure}")
    end = file.seek(0, os.SEEK_END)
    length, block = end, 4096
    while length:
        start = max(0, length - block)
        file.seek(start)
        newline = file.read(length - start).rfind(b"\n")
        length = start + newline + 1
        if newline >= 0:
            break
    if length < end:
        file.truncate(length)
    return length


def _write_all(file: io.FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]
