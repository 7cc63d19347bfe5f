"""Writes the files of a store: each appears when it is complete, and the manifest that lists them last."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.schema import SAMPLE_COLUMNS, SPLITS, STORE_VERSION, channel_count, grid_layout, variables
from datasets.store import MANIFEST, PARTIAL_BINS, WORK, FileDigest, SampleCount, TaskManifest, listfile_name
from utils.arrays import npy_header
from utils.early_flush import early_flush
from utils.files import atomic_write, sha256, write_text
from utils.lazy_pandas import pd
from utils.lock import locked
from utils.threads import THREADS, in_order
from utils.yaml_files import dump_yaml

LOCK = "lock"  # file in the folder WORK of a store
EVENTS_SCHEMA = pa.schema(
    [("stay_id", pa.int64()), ("hours", pa.float64()), ("variable", pa.dictionary(pa.int8(), pa.string())),
     ("value", pa.float64())]
)  # fmt: skip


@contextmanager
def work_folder(store: Path) -> Iterator[Path]:
    """Make the folder for unfinished work in a store, for this process alone; remove it on success.

    Input that is refused before a step is done leaves nothing either, not even a new store's folder.
    """
    work, is_new = store / WORK, not store.exists()
    try:
        with locked(work / LOCK, store, "wait until it has ended"):
            try:
                yield work
            except ValueError:
                if not any(work.glob("*.done")):
                    _empty(work)
                raise
            _empty(work)
    finally:
        with suppress(OSError):  # there is work to go on with, or another process has taken the lock
            work.rmdir()
            if is_new:
                store.rmdir()


def _empty(work: Path) -> None:
    """Remove all but the lock."""
    for path in (path for path in work.iterdir() if not path.name.startswith(LOCK)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def events_table(records: np.ndarray, stay_ids: np.ndarray) -> pa.Table:
    """Return rows of events.parquet from deduplicated events (EVENT_DTYPE) and the stay_id of each stay."""
    names = pa.array([variable.name for variable in variables()])
    variable = pa.DictionaryArray.from_arrays(pa.array(records["variable"].astype(np.int8)), names)
    stay_id, hours = stay_ids[records["stay_row"]], records["second"] / 3600
    columns = [stay_id, hours, variable, np.ascontiguousarray(records["value"])]
    return pa.table(columns, schema=EVENTS_SCHEMA)


def events_writer(path: Path) -> pq.ParquetWriter:
    """Open events.parquet. Its hours seldom repeat: a dictionary of them takes time, and room as well."""
    repeating = [name for name in EVENTS_SCHEMA.names if name != "hours"]
    return pq.ParquetWriter(path, EVENTS_SCHEMA, use_dictionary=repeating, compression="zstd")


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write a table; a full disk is an OSError, as elsewhere, unlike with Polars' own writer."""
    with atomic_write(path) as partial:
        pq.write_table(frame.to_arrow(), partial, compression="zstd")


class ArrayFile:
    """A .npy file that is being written by blocks of rows; `rows` counts them.

    If it is known how many there will be (`total`), the file is hashed while it is written.
    """

    def __init__(
        self,
        file: BinaryIO,
        dtype: type,
        row_shape: tuple[int, ...],
        total: int | None = None,
        wrote: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.rows, self.bytes = 0, 0
        self._wrote = wrote  # called with the number of bytes that were written
        self._file, self._dtype, self._row_shape, self._total = file, dtype, row_shape, total
        self._hash = hashlib.sha256(self._header(total or 0))
        self.write_header()

    def write(self, rows: np.ndarray) -> None:
        """Append rows to the file."""
        block = np.ascontiguousarray(rows, self._dtype).data
        self._file.write(block)
        self._wrote(block.nbytes)
        if self._total is not None:
            self._hash.update(block)
        self.rows += len(rows)
        self.bytes += block.nbytes

    def write_header(self) -> None:
        """Write the number of rows at the start of the file; its length does not depend on the number."""
        self._file.seek(0)
        self._file.write(self._header(self.rows))

    def _header(self, rows: int) -> bytes:
        return npy_header(self._dtype, (rows, *self._row_shape))

    @property
    def digest(self) -> FileDigest:
        """Size and hash of the whole file, once it holds all rows; ValueError unless it does."""
        if self.rows != self._total:
            raise ValueError(f"{self.rows} rows were written, and {self._total} announced")
        return FileDigest(len(self._header(self.rows)) + self.bytes, self._hash.hexdigest())


@contextmanager
def write_rows(
    path: Path, dtype: type, row_shape: tuple[int, ...], total: int | None = None
) -> Iterator[ArrayFile]:
    """Write a .npy file of rows too many for memory; `total` as in ArrayFile."""
    with atomic_write(path) as partial, early_flush() as flushes, partial.open("wb") as file:
        array = ArrayFile(file, dtype, row_shape, total, lambda count: flushes.wrote(partial, count))
        yield array
        array.write_header()


class SamplesFiles:
    """The files of a task that are being written: a listfile for each split, and partial_bins.npy.

    `tables` are further files by name, which are written last.
    """

    def __init__(
        self,
        lists: Mapping[str, BinaryIO],
        partial_bins: ArrayFile,
        stays: pl.DataFrame,
        labels: Sequence[str],
    ) -> None:
        self.counts = dict.fromkeys(lists, SampleCount(0, 0))
        self.partial_bins = partial_bins
        self.tables: dict[str, pd.DataFrame] = {}
        self._lists, self._stays = lists, stays.drop("split")
        self._split = stays["split"].replace_strict(list(SPLITS), range(len(SPLITS))).to_numpy()
        self._columns = ["stay", "period_length", "stay_id", *labels, *SAMPLE_COLUMNS]
        header = pl.DataFrame(schema=self._columns).write_csv()
        for file in lists.values():
            file.write(header.encode())

    def write(self, samples: pd.DataFrame, partial_bins: np.ndarray) -> None:
        """Add samples and the last rows [n, C] of those that end inside a bin, numbered by partial_bin_row.

        `samples` has columns stay_row, end_hours, period_length, the labels, bins, cxr_row, partial_bin_row.
        """
        row, split = samples["partial_bin_row"].to_numpy(), self._split[samples["stay_row"].to_numpy()]
        numbered = samples.assign(partial_bin_row=np.where(row >= 0, row + self.partial_bins.rows, -1))
        order = np.argsort(split, kind="stable")  # the samples of a split together
        ordered = numbered.take(order)
        stays = self._stays[ordered["stay_row"].to_numpy()]
        has_cxr = ordered["cxr_row"].to_numpy() >= 0
        table = pl.DataFrame(
            [stays[n] if n in stays.columns else _to_polars(ordered[n]) for n in self._columns]
        )
        ends = np.bincount(split, minlength=len(SPLITS)).cumsum().tolist()
        for name, start, end in zip(SPLITS, [0, *ends], ends, strict=False):
            table[start:end].write_csv(self._lists[name], include_header=False)
            self.counts[name] += SampleCount(end - start, int(has_cxr[start:end].sum()))
        self.partial_bins.write(partial_bins)


def _to_polars(cells: pd.Series) -> pl.Series:
    """Return a column with null in place of NaN."""
    if isinstance(cells.dtype, np.dtype) and cells.dtype.kind in "iuf":  # the others take long
        return pl.Series(cells.to_numpy(), nan_to_null=True)
    return pl.from_pandas(cells.to_frame()).to_series()


@contextmanager
def write_samples(
    store: Path, task: str, labels: Sequence[str], stays: pd.DataFrame
) -> Iterator[SamplesFiles]:
    """Write a task's folder, its manifest last; `stays` has subject_id, stay_id, episode and split."""
    folder = store / task
    stay = pl.format("{}_episode{}_timeseries.csv", "subject_id", "episode")
    table = pl.from_pandas(stays[["subject_id", "episode", "stay_id", "split"]]).with_columns(stay=stay)
    with ExitStack() as files:
        partial_bins = files.enter_context(write_rows(folder / PARTIAL_BINS, np.float32, (channel_count(),)))
        lists = {}
        for split in SPLITS:
            path = files.enter_context(atomic_write(folder / listfile_name(split)))
            lists[split] = files.enter_context(path.open("wb"))
        writer = SamplesFiles(lists, partial_bins, table, labels)
        yield writer
    for name, table in writer.tables.items():
        write_text(folder / name, table.to_csv(index=False))
    manifest = TaskManifest(
        store=sha256(store / MANIFEST),
        labels=list(labels),
        samples=writer.counts,
        partial_bins=partial_bins.rows,
        files=digests(folder, [*map(listfile_name, SPLITS), PARTIAL_BINS, *writer.tables]),
    )
    write_yaml(folder / MANIFEST, asdict(manifest))


def write_manifest(
    store: Path, content: Mapping[str, object], known: Mapping[str, FileDigest] = MappingProxyType({})
) -> None:
    """Write the manifest of a store, with size and hash of each of its files but those of tasks.

    `known` are those of files that were hashed while they were written.
    """
    names = sorted(path.name for path in store.iterdir() if path.is_file())
    listed = [name for name in names if name != MANIFEST and not name.endswith(".partial")]
    whole = {n: d for n, d in known.items() if n in listed and (store / n).stat().st_size == d.bytes}
    found = {**digests(store, [name for name in listed if name not in whole]), **whole}
    files = {name: asdict(found[name]) for name in listed}
    own = {"store_version": STORE_VERSION, "variables": grid_layout()}
    write_yaml(store / MANIFEST, {**content, **own, "files": files})


def digests(folder: Path, names: Sequence[str]) -> dict[str, FileDigest]:
    """Return size and hash of files of a folder."""
    paths = [folder / name for name in names]
    return dict(zip(names, in_order(FileDigest.of, paths, THREADS), strict=True))


def write_yaml(path: Path, content: Mapping[str, object]) -> None:
    """Write a YAML file, its keys in their order."""
    write_text(path, dump_yaml(dict(content), allow_unicode=False))
