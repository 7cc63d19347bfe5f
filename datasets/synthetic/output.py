"""Folders of a synthetic release: tables that grow block by block, and X-rays drawn by a process pool."""

import gzip
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path

import polars as pl

from datasets.raw.tables import TIME_FORMAT
from datasets.schema import SYNTHETIC_MARKER
from datasets.synthetic.images import XRay, write_xray
from datasets.synthetic.latents import Simulation
from utils.files import explain_disk_full

XRAYS_PER_JOB = 32


@contextmanager
def atomic_folders(out: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield a folder to write `names` in; on success they move into `out`, on failure nothing is left.

    Raises:
        ValueError: One of the names exists in `out`.
    """
    if existing := [name for name in names if (out / name).exists()]:
        raise ValueError(f"{out}: {' and '.join(existing)} already there; remove it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out, prefix=".partial-"))
    try:
        with explain_disk_full(out, "nothing is left of this one"):
            yield folder
            for name in names:
                (folder / name).rename(out / name)
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class TableWriter:
    """Gzipped CSV files below a folder; the same frames give the same bytes."""

    root: Path
    open_files: ExitStack
    tables: dict[str, gzip.GzipFile] = field(default_factory=dict)

    def append(self, name: str, frame: pl.DataFrame) -> None:
        """Append rows to `<name>.csv.gz`, which begins with a header."""
        is_new = name not in self.tables
        if is_new:
            path = self.root / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self.open_files.enter_context(path.open("wb"))
            table = gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0)
            self.tables[name] = self.open_files.enter_context(table)
        text = frame.write_csv(include_header=is_new, datetime_format=TIME_FORMAT)
        self.tables[name].write(text.encode())


@contextmanager
def open_tables(root: Path, notice: str) -> Iterator[TableWriter]:
    """Make a folder of tables, with a file that says that its records are synthetic."""
    root.mkdir()
    (root / SYNTHETIC_MARKER).write_text(notice)
    with ExitStack() as open_files:
        yield TableWriter(root, open_files)


@dataclass
class CXRWriter:
    """A MIMIC-CXR-JPG folder: its tables, and a pool that draws its X-rays."""

    tables: TableWriter
    seed: int
    simulation: Simulation
    pool: Executor
    pending: Iterable[None] = ()

    def write_xrays(self, xrays: Sequence[XRay], paths: Sequence[Path]) -> None:
        """Write a block's X-rays, which are drawn while the next block's tables are made.

        Waits for the block before, so that memory stays bounded.
        """
        self.wait()
        settings = repeat(self.seed), repeat(self.simulation)
        self.pending = self.pool.map(write_xray, xrays, paths, *settings, chunksize=XRAYS_PER_JOB)

    def wait(self) -> None:
        """Wait for pending X-rays, and raise what went wrong with one."""
        for _ in self.pending:
            continue


@contextmanager
def open_cxr(root: Path, notice: str, seed: int, simulation: Simulation, workers: int) -> Iterator[CXRWriter]:
    """Make a MIMIC-CXR-JPG folder, and start processes that draw (0: one per core; 1: only a thread)."""
    count = workers or os.cpu_count() or 1
    processes = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("spawn"))
    with (
        open_tables(root, notice) as tables,
        (ThreadPoolExecutor if count == 1 else processes)(count) as pool,
    ):
        writer = CXRWriter(tables, seed, simulation, pool)
        yield writer
        writer.wait()
