"""Checks that the shards of a MEDS dataset keep to the standard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.meds.schema import DATA_SCHEMA
from datasets.raw.cells import InvalidCell

ROWS_PER_BATCH = 1 << 17
BUILD_AGAIN = "build the dataset again, as the standard MEDS 0.4 asks"
STATIC = np.iinfo(np.int64).min  # time of a row without one


class RowOrder:
    """Checks that a subject's rows lie together in one file, in order of time."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # subject of each run of rows, by batch
        self._files: list[int] = []  # number of the file of each part of _runs
        self._paths: list[Path] = []
        self._last = (-1, STATIC)

    def start(self, path: Path) -> None:
        """Begin a file."""
        self._paths.append(path)
        self._last = (-1, STATIC)

    def check(self, batch: pa.RecordBatch) -> None:
        """Check the next rows of the file."""
        path = self._paths[-1]
        for name in ("subject_id", "code"):
            if batch.column(name).null_count:
                raise ValueError(f"{path}: a row has no {name}; {BUILD_AGAIN}")
        if not len(batch):
            return
        time = batch.column("time").cast(pa.int64()).fill_null(int(STATIC)).to_numpy()
        subject, time = (
            np.append(before, new)
            for before, new in zip(self._last, (batch.column("subject_id").to_numpy(), time), strict=True)
        )
        is_new = subject[1:] != subject[:-1]
        if np.any(~is_new & (time[1:] < time[:-1])):
            raise ValueError(f"{path}: the rows of a subject are not in order of time; {BUILD_AGAIN}")
        is_new[0] |= len(self._files) == 0 or self._files[-1] != len(self._paths) - 1
        self._runs.append(subject[1:][is_new])
        self._files.append(len(self._paths) - 1)
        self._last = int(subject[-1]), int(time[-1])

    def check_subjects(self) -> None:
        """Check that no subject has two runs of rows."""
        runs = np.concatenate(self._runs) if self._runs else np.empty(0, np.int64)
        files = np.repeat(self._files, [len(run) for run in self._runs])
        order = np.argsort(runs, kind="stable")
        again = np.flatnonzero(np.diff(runs[order]) == 0)
        if len(again):
            first, second = files[order[again[0]]], files[order[again[0] + 1]]
            where = f"also in {self._paths[first]}" if first != second else "not together"
            raise ValueError(f"{self._paths[second]}: the rows of a subject are {where}; {BUILD_AGAIN}")


def check_columns(path: Path) -> None:
    """Check that a shard has the columns of the standard in its types.

    Raises:
        ValueError: It has not, or is no Parquet file.
    """
    with explain(path):
        schema = pq.read_schema(path)
    for wanted in DATA_SCHEMA:
        if wanted.name not in schema.names:
            if not wanted.nullable or wanted.name == "time":
                raise ValueError(f"{path}: column {wanted.name} is missing; {BUILD_AGAIN}")
            continue
        kind = schema.field(wanted.name).type
        is_text = pa.types.is_string(wanted.type) or pa.types.is_large_string(wanted.type)
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        fits = kind == wanted.type or (
            is_text and (pa.types.is_string(plain) or pa.types.is_large_string(plain))
        )
        if not fits and not (wanted.name == "numeric_value" and pa.types.is_floating(kind)):
            zone = "; its times have no zone" if pa.types.is_timestamp(kind) and kind.tz else ""
            raise ValueError(
                f"{path}: column {wanted.name} is {kind}, not {wanted.type}{zone}; {BUILD_AGAIN}"
            )


def codes_of(path: Path) -> set[str]:
    """Return the different codes of a shard."""
    with explain(path), pq.ParquetFile(path, read_dictionary=["code"]) as file:
        batches = file.iter_batches(ROWS_PER_BATCH, columns=["code"])
        return {code for batch in batches for code in batch.column("code").dictionary.to_pylist()}


@contextmanager
def explain(path: Path) -> Iterator[None]:
    """Replace an error about a file, which may quote a value, by one that names the file.

    Raises:
        ValueError: It cannot be read, or holds a time of antiquity.
    """
    try:
        yield
    except InvalidCell as error:
        raise ValueError(f"{path}: {error.column} {error.fault}; {BUILD_AGAIN}") from None
    except (pa.ArrowException, OSError) as error:
        kind = type(error).__name__
        raise ValueError(
            f"{path}: cannot be read as a table of the standard ({kind}); {BUILD_AGAIN}"
        ) from None
