"""A fake MIMIC-IV and MIMIC-CXR-JPG in the releases' own layout, or fake X-rays for real stays."""

import gzip
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
from tqdm import tqdm

from datasets.cxr import image_path
from datasets.raw.reading import read_table
from datasets.raw.tables import TIME_FORMAT
from datasets.schema import SYNTHETIC_MARKER
from datasets.store import Store
from datasets.synthetic.images import Film, write_film
from datasets.synthetic.patients import (
    BLOCK,
    HISTORY,
    MAX_PATIENTS,
    Block,
    Strengths,
    course_of,
    draw_block,
    draw_diagnoses,
    draw_latents,
    numbered,
    stream,
    timestamps,
)
from datasets.synthetic.studies import Studies, draw_studies, findings_table, metadata_table
from datasets.synthetic.tables import draw_charts, draw_labs, item_tables
from utils.files import explain_disk_full

SENTENCE = "Synthetic data made by `python -m datasets.synthetic`: no record here is of a real patient.\n"
FAKE_FILMS = "Synthetic X-rays made by `python -m datasets.synthetic` for real stays: no finding is real.\n"
FILMS_PER_TASK = 32
IV, CXR = "mimic-iv", "mimic-cxr-jpg"
METADATA, CHEXPERT = "mimic-cxr-2.0.0-metadata", "mimic-cxr-2.0.0-chexpert"
SMALLEST, LARGEST = 64, 4096  # pixels


@dataclass(frozen=True)
class SyntheticConfig:
    """Write synthetic MIMIC-IV and MIMIC-CXR-JPG folders, or synthetic X-rays for real stays."""

    out: Path
    """Folder that gets `mimic-iv` and `mimic-cxr-jpg`; neither may be there yet."""
    patients: int = 1000
    """Number of patients; the first n are the same for every number."""
    seed: int = 0
    """Seed of everything that is drawn."""
    image_size: int = 512
    """Shorter side of the X-rays in pixels; the longer one is 1.2 times as long."""
    images: bool = True
    """Write the X-ray tables and images at all."""
    paired: float = 0.6
    """Share of the ICU stays that have an AP X-ray within the stay (about 0.2 in the real releases)."""
    for_stays: Path | None = None
    """A raw MIMIC-IV folder or a finished store: write X-rays for its stays, and no MIMIC-IV (and no use of
    --patients)."""
    workers: int = 1
    """Processes that draw images; 0 takes one per core."""

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= MAX_PATIENTS:
            raise ValueError(f"--patients must be 1 to {MAX_PATIENTS}, not {self.patients}")
        if not 0 <= self.paired <= 1:
            raise ValueError(f"--paired is a share between 0 and 1, not {self.paired}")
        if not SMALLEST <= self.image_size <= LARGEST:
            raise ValueError(f"--image_size must be {SMALLEST} to {LARGEST} pixels, not {self.image_size}")
        if self.seed < 0 or self.workers < 0:
            raise ValueError(f"--seed and --workers must be 0 or more, not {self.seed} and {self.workers}")
        if self.for_stays and not self.images:
            raise ValueError(
                "--for_stays writes X-rays alone and --no-images none of them; give one of the two"
            )


class Tables:
    """Gzipped CSV files below a folder, appended to block by block; the same frames give the same bytes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, IO[bytes]] = {}

    def append(self, name: str, frame: pl.DataFrame) -> None:
        """Append rows to `<name>.csv.gz`, beginning with a header."""
        new = name not in self._open
        if new:
            path = self._root / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open[name] = gzip.GzipFile("", "wb", compresslevel=1, fileobj=path.open("wb"), mtime=0)
        text = frame.write_csv(include_header=new, datetime_format=TIME_FORMAT)
        self._open[name].write(text.encode())

    def close(self) -> None:
        """End every file."""
        for file in self._open.values():
            below = file.fileobj
            file.close()
            below.close()


@dataclass(frozen=True)
class CXROutput:
    """A MIMIC-CXR-JPG folder being written, its tables, the processes that draw (None: this one), and the
    images that they are at.
    """

    root: Path
    tables: Tables
    pool: Executor | None
    pending: list[Future[None]] = field(default_factory=list)


@contextmanager
def _unfinished(out: Path, names: Iterable[str]) -> Iterator[Path]:
    """A folder to write `names` in; on success they move into `out`, on failure nothing is left.

    Raises:
        ValueError: `out` has one of them already.
    """
    if there := [name for name in names if (out / name).exists()]:
        raise ValueError(f"{out}: {' and '.join(there)} is there already; remove it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=out, prefix=".partial-"))
    try:
        with explain_disk_full(out, "nothing is left of this one"):
            yield place
            for name in names:
                (place / name).rename(out / name)
    finally:
        shutil.rmtree(place)


@contextmanager
def _tables(root: Path, sentence: str) -> Iterator[Tables]:
    root.mkdir()
    (root / SYNTHETIC_MARKER).write_text(sentence)
    tables = Tables(root)
    try:
        yield tables
    finally:
        tables.close()


def write_mimic_iv(tables: Tables, seed: int, block: int, drawn: Block, kept: list[int]) -> None:
    """Append the MIMIC-IV 2.2 tables of a block's patients `kept` (subject ids)."""
    only = pl.col("subject_id").is_in(kept)
    patients = drawn.patients.with_columns(dod=pl.from_epoch("dod", "s").cast(pl.Date)).filter(only)
    tables.append(
        "hosp/patients",
        patients.select("subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"),
    )
    times = ("admittime", "dischtime", "deathtime", "edregtime", "edouttime")
    admissions = timestamps(drawn.admissions, times).filter(only).select(
        "subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type",
        "admit_provider_id", "admission_location", "discharge_location", "insurance", "language",
        "marital_status", "race", "edregtime", "edouttime", "hospital_expire_flag",
    )  # fmt: skip
    tables.append("hosp/admissions", admissions)
    stays = timestamps(drawn.stays, ("intime", "outtime")).filter(only).select(
        "subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime", "los"
    )  # fmt: skip
    tables.append("icu/icustays", stays)
    tables.append("hosp/diagnoses_icd", draw_diagnoses(seed, block, drawn).filter(only))
    tables.append("hosp/labevents", draw_labs(seed, block, drawn).filter(only))
    tables.append("icu/chartevents", draw_charts(seed, block, drawn).filter(only))


def films_of(drawn: Studies, kept: list[int], root: Path) -> list[tuple[Film, Path]]:
    """The images of a block's patients `kept` (subject ids) and where each is to be written."""
    studies = drawn.studies.select("subject_id", "study_id")
    wanted = set(kept)
    films = []
    for study, number, dicom_id, view, rows, columns in drawn.images.iter_rows():
        subject_id, study_id = studies.row(study)
        if subject_id in wanted:
            film = Film(subject_id, study_id, number, view, rows, columns, drawn.signs[study])
            films.append((film, image_path(root, subject_id, study_id, dicom_id)))
    return films


def _write_films(films: list[tuple[Film, Path]], seed: int, strengths: Strengths) -> None:
    for film, path in films:
        write_film(film, path, seed, strengths)


@contextmanager
def _cxr_output(root: Path, sentence: str, workers: int) -> Iterator[CXROutput]:
    """A MIMIC-CXR-JPG folder to write to, and `workers` processes that draw (0: one per core)."""
    count = workers or os.cpu_count() or 1
    with _tables(root, sentence) as tables:
        if count == 1:
            yield CXROutput(root, tables, None)
            return
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            output = CXROutput(root, tables, pool)
            yield output
            _wait(output)


def _draw_films(output: CXROutput, films: list[tuple[Film, Path]], seed: int, strengths: Strengths) -> None:
    """Write a block's images, here or in the pool, which draws them while the next block's tables are made;
    no more than one block waits, so that memory stays bounded.
    """
    if output.pool is None:
        _write_films(films, seed, strengths)
        return
    _wait(output)
    parts = [films[start : start + FILMS_PER_TASK] for start in range(0, len(films), FILMS_PER_TASK)]
    output.pending.extend(output.pool.submit(_write_films, part, seed, strengths) for part in parts)


def _wait(output: CXROutput) -> None:
    """Ends when the pending images are written; raises what went wrong with one."""
    for done in output.pending:
        done.result()
    output.pending.clear()


def write_synthetic(config: SyntheticConfig, strengths: Strengths) -> None:
    """Write synthetic patients as `out/mimic-iv` and, with images, `out/mimic-cxr-jpg`; all or nothing.

    A block of patients is drawn and written at a time, so that memory does not grow with their number.

    Raises:
        ValueError: one of the folders is there already.
    """
    names = (IV, CXR) if config.images else (IV,)
    blocks = range(-(-config.patients // BLOCK))
    with ExitStack() as stack:
        place = stack.enter_context(_unfinished(config.out, names))
        tables = stack.enter_context(_tables(place / IV, SENTENCE))
        films = (
            stack.enter_context(_cxr_output(place / CXR, SENTENCE, config.workers)) if config.images else None
        )
        items, labs = item_tables()
        tables.append("icu/d_items", items)
        tables.append("hosp/d_labitems", labs)
        for block in tqdm(blocks, desc="patients", unit=f" x {BLOCK}", disable=None):
            drawn = draw_block(config.seed, block, strengths)
            kept = drawn.patients["subject_id"].to_list()[: config.patients - block * BLOCK]
            write_mimic_iv(tables, config.seed, block, drawn, kept)
            if films is not None:
                _write_cxr(config, films, block, drawn, kept)


def _write_cxr(config: SyntheticConfig, output: CXROutput, block: int, drawn: Block, kept: list[int]) -> None:
    """Write the studies, findings and images of a block's patients `kept` (subject ids)."""
    strengths, only = drawn.course.strengths, pl.col("subject_id").is_in(kept)
    studies = draw_studies(config.seed, block, drawn, config.paired, config.image_size)
    output.tables.append(METADATA, metadata_table(studies).filter(only))
    findings = findings_table(config.seed, block, studies, strengths.finding_error)
    output.tables.append(CHEXPERT, findings.filter(only))
    _draw_films(output, films_of(studies, kept, output.root), config.seed, strengths)


def write_films_for(config: SyntheticConfig, source: Path, strengths: Strengths) -> None:
    """Write synthetic X-rays for the real stays of `source` as `out/mimic-cxr-jpg`; all or nothing.

    Hidden states are drawn by chance, but that severity is higher in those who died in hospital: enough to
    run every step, and clinically meaningless.

    Raises:
        ValueError: the folder is there already, or `source` has no stays that can be read.
    """
    stays = read_stays(source)
    subjects = stays["subject_id"].unique().sort()
    blocks = range(0, len(subjects), BLOCK)
    with (
        _unfinished(config.out, (CXR,)) as place,
        _cxr_output(place / CXR, FAKE_FILMS, config.workers) as films,
    ):
        for block, start in enumerate(tqdm(blocks, desc="patients", unit=f" x {BLOCK}", disable=None)):
            drawn = block_of_stays(config.seed, block, stays, subjects[start : start + BLOCK], strengths)
            _write_cxr(config, films, block, drawn, drawn.patients["subject_id"].to_list())


def read_stays(source: Path) -> pl.DataFrame:
    """ICU stays of a raw MIMIC-IV folder or a finished store: ids, and times in seconds since 1970.

    Raises:
        ValueError: it is neither, or holds no stay.
    """
    columns = ("subject_id", "hadm_id", "stay_id", "intime", "outtime", "admittime", "dischtime", "deathtime")
    if (source / "stays.parquet").exists():
        stays = pl.from_pandas(Store.open(source).stays(columns))
    else:
        admissions = read_table(source, "admissions").select("hadm_id", "admittime", "dischtime", "deathtime")
        stays = read_table(source, "icustays").join(admissions, on="hadm_id").select(columns)
    stays = stays.drop_nulls(columns[3:7]).sort("subject_id", "intime", "stay_id")
    if stays.is_empty():
        raise ValueError(
            f"{source}: no ICU stay with its times; give a raw MIMIC-IV folder or a finished store"
        )
    return stays.with_columns(pl.col(columns[3:]).dt.epoch("s"))


def block_of_stays(
    seed: int, block: int, stays: pl.DataFrame, subjects: pl.Series, strengths: Strengths
) -> Block:
    """Real stays (times in seconds) of `subjects` as a block to draw X-rays for; hidden states by chance."""
    own = stays.filter(pl.col("subject_id").is_in(subjects.implode()))
    patients = numbered(pl.DataFrame({"subject_id": subjects}), "patient")
    patients = patients.with_columns(index=pl.col("patient") + block * BLOCK)
    own = own.join(patients.select("subject_id", "patient"), on="subject_id", maintain_order="left")
    columns = ("patient", "subject_id", "hadm_id", "admittime", "dischtime", "deathtime")
    admissions = own.unique("hadm_id", maintain_order=True, keep="first").select(columns)
    rows = numbered(admissions.select("hadm_id"), "admission")
    own = own.join(rows, on="hadm_id", maintain_order="left")
    died = admissions["deathtime"].is_not_null().to_numpy()
    latents = draw_latents(stream(seed, block, HISTORY), len(admissions), strengths)
    latents += strengths.death_shift * np.outer(died, strengths.with_severity)
    return Block(patients, admissions, own, course_of(admissions, own, latents, strengths))


def main(config: SyntheticConfig) -> None:
    """Write what the flags ask for and say where it is."""
    if config.for_stays:
        write_films_for(config, config.for_stays, Strengths())
    else:
        write_synthetic(config, Strengths())
    written = [CXR] if config.for_stays else [IV, *([CXR] if config.images else [])]
    print("wrote", " and ".join(str(config.out / name) for name in written))
