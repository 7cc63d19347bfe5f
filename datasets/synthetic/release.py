"""Write synthetic MIMIC-IV and MIMIC-CXR-JPG folders, or synthetic X-rays for real stays."""

import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

import polars as pl
from tqdm import tqdm

from datasets.cxr import image_name
from datasets.raw.cells import TIME_FORMAT
from datasets.schema import SYNTHETIC_MARKER
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.events import draw_charts, draw_labs, item_tables
from datasets.synthetic.frames import to_datetimes
from datasets.synthetic.images import XRay, in_groups, write_xrays
from datasets.synthetic.patients import (
    PATIENTS_PER_BLOCK,
    Block,
    block_of_stays,
    draw_block,
    draw_diagnoses,
    read_stays,
)
from datasets.synthetic.simulation import Simulation
from datasets.synthetic.studies import Studies, draw_studies, findings_table, metadata_table
from utils.files import explain_disk_full
from utils.lock import locked
from utils.log import logger
from utils.machine import available_cpus
from utils.processes import process_pool

BLOCKS_AHEAD = 3  # whose tables are made before their X-rays are drawn
TABLES_AHEAD = 8  # that are made before they are written: those of one block
NOTICE = "Synthetic data made by `python -m datasets.synthetic`: no record here is of a real patient.\n"
XRAY_NOTICE = "Synthetic X-rays made by `python -m datasets.synthetic` for real stays: no finding is real.\n"
IV, CXR = "mimic-iv", "mimic-cxr-jpg"
METADATA, CHEXPERT = "mimic-cxr-2.0.0-metadata", "mimic-cxr-2.0.0-chexpert"
BLOCKS = f" x {PATIENTS_PER_BLOCK}"  # unit of the progress bar


@contextmanager
def atomic_folders(out: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield a folder to write `names` in; on success they move into `out`, on failure nothing is left."""
    with locked(out / ".lock", out, "wait until it has ended, or give another --out"):
        if existing := [name for name in names if (out / name).exists()]:
            there = f"{' and '.join(existing)} already there"
            raise ValueError(f"{out}: {there}; remove it, or give another --out")
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
    """Gzipped CSV files below a folder; the same frames give the same bytes.

    A thread compresses and writes while the next frames are made; at most TABLES_AHEAD are pending.
    """

    root: Path
    open_files: ExitStack
    thread: Executor
    tables: dict[str, BinaryIO] = field(default_factory=dict)
    pending: deque[Future[None]] = field(default_factory=deque)

    def append(self, name: str, frame: pl.DataFrame) -> None:
        """Append rows to `<name>.csv.gz`, which begins with a header, as a gzip member of their own."""
        self.wait(TABLES_AHEAD - 1)
        self.pending.append(self.thread.submit(self._write, name, frame))

    def wait(self, at_most: int = 0) -> None:
        """Wait until at most this many frames are pending, and raise what went wrong with one."""
        while len(self.pending) > at_most:
            self.pending.popleft().result()

    def _write(self, name: str, frame: pl.DataFrame) -> None:
        is_new = name not in self.tables
        if is_new:
            path = self.root / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.tables[name] = self.open_files.enter_context(path.open("wb"))
        member = BytesIO()
        frame.write_csv(
            member,
            include_header=is_new,
            datetime_format=TIME_FORMAT,
            compression="gzip",
            compression_level=1,
        )
        self.tables[name].write(member.getbuffer())


@contextmanager
def open_tables(root: Path, notice: str) -> Iterator[TableWriter]:
    """Make a folder of tables, with a file that says that its records are synthetic."""
    root.mkdir()
    (root / SYNTHETIC_MARKER).write_text(notice)
    with ExitStack() as open_files, ThreadPoolExecutor(1) as thread:
        tables = TableWriter(root, open_files, thread)
        yield tables
        tables.wait()


@dataclass
class CXRWriter:
    """A MIMIC-CXR-JPG folder: its tables, and a pool that draws its X-rays."""

    tables: TableWriter
    seed: int
    simulation: Simulation
    pool: Executor
    workers: int
    pending: deque[Iterable[None]] = field(default_factory=deque)

    def write_xrays(self, xrays: Sequence[XRay], paths: Sequence[str]) -> None:
        """Write X-rays while the tables of later blocks are made; at most BLOCKS_AHEAD blocks are pending.

        Each process gets one job of a block. Smaller jobs would wait for this process, which hands them over
        and makes tables at the same time.
        """
        while len(self.pending) >= BLOCKS_AHEAD:
            self._wait_for_oldest()
        groups = in_groups(xrays)
        drawn = [[xrays[row] for row in rows] for rows in groups]
        written = [[paths[row] for row in rows] for rows in groups]
        settings = repeat(self.seed), repeat(self.simulation)
        size = max(1, -(-len(groups) // self.workers))
        pending = self.pool.map(write_xrays, drawn, written, *settings, chunksize=size)
        self.pending.append(pending)

    def wait(self) -> None:
        """Wait for pending X-rays, and raise what went wrong with one."""
        while self.pending:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        for _ in self.pending.popleft():
            continue


@contextmanager
def open_cxr(root: Path, notice: str, seed: int, simulation: Simulation, workers: int) -> Iterator[CXRWriter]:
    """Make a MIMIC-CXR-JPG folder, and start processes that draw (0: one per core; 1: only a thread)."""
    count = workers or available_cpus()
    with (
        open_tables(root, notice) as tables,
        ThreadPoolExecutor(1) if count == 1 else process_pool(count, "draws X-rays") as pool,
    ):
        for _ in range(count):
            pool.submit(in_groups, ())  # starts a process, which imports what it needs meanwhile
        writer = CXRWriter(tables, seed, simulation, pool, count)
        try:
            yield writer
            writer.wait()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # blocks that are pending need not be drawn
            raise


def write_mimic_iv(tables: TableWriter, seed: int, block: int, simulated: Block, subjects: list[int]) -> None:
    """Append the MIMIC-IV 2.2 tables of some subjects of a block."""
    selected = pl.col("subject_id").is_in(subjects)
    patients = simulated.patients.with_columns(dod=pl.from_epoch("dod", "s").cast(pl.Date)).select(
        "subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"
    )
    times = ("admittime", "dischtime", "deathtime", "edregtime", "edouttime")
    admissions = to_datetimes(simulated.admissions, times).select(
        "subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type",
        "admit_provider_id", "admission_location", "discharge_location", "insurance", "language",
        "marital_status", "race", "edregtime", "edouttime", "hospital_expire_flag",
    )  # fmt: skip
    icustays = to_datetimes(simulated.stays, ("intime", "outtime")).select(
        "subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime", "los"
    )
    tables.append("hosp/patients", patients.filter(selected))
    tables.append("hosp/admissions", admissions.filter(selected))
    tables.append("icu/icustays", icustays.filter(selected))
    tables.append("hosp/diagnoses_icd", draw_diagnoses(seed, block, simulated).filter(selected))
    tables.append("hosp/labevents", draw_labs(seed, block, simulated).filter(selected))
    tables.append("icu/chartevents", draw_charts(seed, block, simulated).filter(selected))


def write_mimic_cxr(
    cxr: CXRWriter, config: SyntheticConfig, block: int, simulated: Block, subjects: list[int]
) -> None:
    """Append the MIMIC-CXR-JPG 2.0.0 tables of some subjects of a block, and write their images."""
    selected = pl.col("subject_id").is_in(subjects)
    studies = draw_studies(config.seed, block, simulated, config.paired, config.image_size)
    error = simulated.course.simulation.finding_error
    cxr.tables.append(METADATA, metadata_table(studies).filter(selected))
    cxr.tables.append(CHEXPERT, findings_table(config.seed, block, studies, error).filter(selected))
    cxr.write_xrays(*_xrays_of(studies, set(subjects), cxr.tables.root))


def _xrays_of(simulated: Studies, subjects: set[int], root: Path) -> tuple[list[XRay], list[str]]:
    """Return the X-rays of some subjects, and the path of each."""
    ids = simulated.studies.select("subject_id", "study_id")
    xrays, paths = [], []
    for study, number, dicom_id, view, rows, columns in simulated.images.iter_rows():
        subject_id, study_id = ids.row(study)
        if subject_id in subjects:
            xrays.append(XRay(subject_id, study_id, number, view, rows, columns, simulated.signs[study]))
            paths.append(f"{root}/{image_name(subject_id, study_id, dicom_id)}")
    return xrays, paths


def write_synthetic(config: SyntheticConfig, simulation: Simulation) -> None:
    """Write synthetic patients as `out/mimic-iv` and, with images, `out/mimic-cxr-jpg`; all or nothing."""
    names = (IV, CXR) if config.images else (IV,)
    blocks = range(-(-config.patients // PATIENTS_PER_BLOCK))
    with ExitStack() as stack:
        folder = stack.enter_context(atomic_folders(config.out, names))
        iv_tables = stack.enter_context(open_tables(folder / IV, NOTICE))
        if config.images:
            cxr = open_cxr(folder / CXR, NOTICE, config.seed, simulation, config.workers)
            cxr_writer = stack.enter_context(cxr)
        for name, table in zip(("icu/d_items", "hosp/d_labitems"), item_tables(), strict=True):
            iv_tables.append(name, table)
        for block in tqdm(blocks, desc="patients", unit=BLOCKS, disable=None):
            simulated = draw_block(config.seed, block, simulation)
            remaining = config.patients - block * PATIENTS_PER_BLOCK
            subjects = simulated.patients["subject_id"].to_list()[:remaining]
            write_mimic_iv(iv_tables, config.seed, block, simulated, subjects)
            if config.images:
                write_mimic_cxr(cxr_writer, config, block, simulated, subjects)


def write_xrays_for_stays(config: SyntheticConfig, source: Path, simulation: Simulation) -> None:
    """Write synthetic X-rays for the real stays of `source` as `out/mimic-cxr-jpg`; all or nothing.

    They mean nothing clinically: states are chance, but severity is higher in those who died in hospital.
    """
    stays = read_stays(source)
    subjects = stays["subject_id"].unique().sort()
    starts = range(0, len(subjects), PATIENTS_PER_BLOCK)
    with (
        atomic_folders(config.out, (CXR,)) as folder,
        open_cxr(folder / CXR, XRAY_NOTICE, config.seed, simulation, config.workers) as cxr,
    ):
        for block, start in enumerate(tqdm(starts, desc="patients", unit=BLOCKS, disable=None)):
            members = subjects[start : start + PATIENTS_PER_BLOCK]
            simulated = block_of_stays(config.seed, block, stays, members, simulation)
            write_mimic_cxr(cxr, config, block, simulated, members.to_list())


def main(config: SyntheticConfig) -> None:
    """Write what the flags select and print where it is."""
    if config.for_stays:
        write_xrays_for_stays(config, config.for_stays, Simulation())
        names = [CXR]
    else:
        write_synthetic(config, Simulation())
        names = [IV, CXR] if config.images else [IV]
    logger.info(f"wrote {' and '.join(str(config.out / name) for name in names)}")
