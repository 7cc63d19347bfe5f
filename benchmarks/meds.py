"""A MEDS dataset: seconds and memory of its extraction, next to that of the raw tables it was made from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from benchmarks import child
from benchmarks.child import Ended
from benchmarks.record import RESULTS, Figure, record
from benchmarks.replicas import IV, TABLES, Mix, Pattern
from datasets.meds.schema import (
    BIRTH,
    DATA,
    DEATH,
    MEDS_SPLITS,
    METADATA,
    SPLITS_FILE,
    SPLITS_SCHEMA,
)
from datasets.meds.writing import SHARD_SCHEMA
from datasets.schema import LabTime
from datasets.splits import split_of
from utils.cli import run_cli
from utils.machine import available_cpus

PACKAGES = ("numpy", "polars", "pyarrow")
SUBJECTS_PER_SHARD = 1000  # as MIMIC_IV_MEDS sets it
ROWS_PER_GROUP = 1 << 18  # of Polars, with which MEDS_extract writes


@dataclass(frozen=True)
class MEDSBenchmark:
    """Extract the same synthetic patients from raw tables and from MEDS, at several sizes."""

    patients: tuple[int, ...] = (250, 1000)
    """Numbers of patients; `--patients 1000 10000` takes some five minutes and 1 GB."""
    lab_time: LabTime = "storetime"
    """Dialect of MIMIC_IV_MEDS: `storetime` since 0.1.0, which has two events a laboratory value; `charttime`
    before."""
    mix: Mix = "demo"
    """Rows that a variable reads: 16 % of chartevents as in the MIMIC-IV demo, or all that the synthetic
    charts have (67 %)."""
    pattern: int = 250
    """Synthetic patients that are written again and again under other ids."""
    scratch: Path = Path("data/benchmarks")
    """Folder for raw tables, MEDS datasets and stores, emptied at the end."""
    results: Path = RESULTS
    """File that the measured rows are added to."""


@dataclass(frozen=True)
class Size:
    """What the extraction of one number of patients costs from MEDS, and from raw tables."""

    patients: int
    meds: Ended
    raw: Ended


def events_of(tables: Mapping[str, pl.DataFrame], lab_time: LabTime) -> pl.DataFrame:
    """Return the events of raw tables by the rules of MIMIC_IV_MEDS, by subject and time.

    As in MEDS_extract, a text that is its number is left out, and so is a repeated row.
    """
    patients, admissions, diagnoses, stays, labs, charts = (tables[name] for name in TABLES)
    deaths = patients.join(admissions.group_by("subject_id").agg(pl.col("deathtime").min()), on="subject_id")
    died = pl.coalesce("deathtime", pl.col("dod") + " 00:00:00")
    born = pl.format("{}-01-01 00:00:00", pl.col("anchor_year").cast(int) - pl.col("anchor_age").cast(int))
    coded = diagnoses.join(admissions.select("hadm_id", "dischtime"), on="hadm_id")
    newer = lab_time == "storetime"
    parts = [
        _events(patients, None, "GENDER//{}", "gender"),
        _events(patients, born, BIRTH),
        _events(deaths, died, DEATH).drop_nulls("time"),
        _events(
            admissions, "admittime", "HOSPITAL_ADMISSION//{}//{}", "admission_type", "admission_location"
        ),
        _events(admissions, "admittime", "RACE//{}", "race"),
        _events(stays, "intime", "ICU_ADMISSION//{}", "first_careunit"),
        _events(stays, "outtime", "ICU_DISCHARGE//{}", "last_careunit"),
        _events(coded, "dischtime", "DIAGNOSIS//ICD//{}//{}", "icd_version", "icd_code"),
        _events(admissions, "dischtime", "HOSPITAL_DISCHARGE//{}", "discharge_location"),
        *([_events(labs, "charttime", "LAB//SPECIMEN_COLLECTED//{}//{}", "itemid", "priority")] * newer),
        _events(labs, lab_time, "LAB//RESULT//{}//{}" if newer else "LAB//{}//{}", "itemid", "valueuom"),
        _events(charts, "charttime", "LAB//{}//{}", "itemid", "valueuom"),
    ]
    events = pl.concat(parts, how="diagonal").unique(maintain_order=True)
    return events.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def _events(rows: pl.DataFrame, time: str | pl.Expr | None, code: str, *components: str) -> pl.DataFrame:
    """Return an event for each row; UNK stands for a missing component of its code."""
    at = pl.lit(None, pl.String) if time is None else pl.col(time) if isinstance(time, str) else time
    columns = [pl.col(name) for name in ("subject_id", "hadm_id", "stay_id") if name in rows.columns]
    known = [pl.col(name).fill_null("UNK") for name in components]
    if "valuenum" in rows.columns and "SPECIMEN" not in code:
        number = pl.col("valuenum").cast(pl.Float32)
        is_number = (pl.col("value").cast(pl.Float32, strict=False) == number).fill_null(False)
        columns += [number.alias("numeric_value"), pl.when(~is_number).then("value").alias("text_value")]
    return rows.select(*columns, time=at.str.to_datetime(time_unit="us"), code=pl.format(code, *known))


def write_meds(events: pl.DataFrame, pattern: Pattern, copies: int, folder: Path) -> None:
    """Write `copies` of a pattern's events as a dataset; each subject has the split that a hash gives it."""
    splits: list[pl.DataFrame] = []
    copies_per_shard = max(1, SUBJECTS_PER_SHARD // pattern.id_counts["subject_id"])
    for number, start in enumerate(range(0, copies, copies_per_shard)):
        with ExitStack() as stack:
            writers = {}
            for split in MEDS_SPLITS.values():
                path = folder / DATA / split / f"{number}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                writers[split] = stack.enter_context(pq.ParquetWriter(path, SHARD_SCHEMA, compression="zstd"))
            for copy in range(start, min(start + copies_per_shard, copies)):
                rows = pattern.shifted(events, copy).rename({"stay_id": "icustay_id"})
                split_of_subject = {id: MEDS_SPLITS[split_of(id)] for id in rows["subject_id"].unique()}
                rows = rows.with_columns(split=pl.col("subject_id").replace_strict(split_of_subject))
                splits.append(rows.select("subject_id", "split").unique(maintain_order=True))
                for (split,), part in rows.partition_by("split", as_dict=True).items():
                    table = part.select(SHARD_SCHEMA.names).to_arrow().cast(SHARD_SCHEMA)
                    writers[str(split)].write_table(table, ROWS_PER_GROUP)
    (folder / METADATA).mkdir()
    pq.write_table(pl.concat(splits).to_arrow().cast(SPLITS_SCHEMA), folder / METADATA / SPLITS_FILE)


def measure(pattern: Pattern, events: pl.DataFrame, copies: int, folder: Path) -> Size:
    """Extract `copies` of the pattern from raw tables and from MEDS, and remove them again."""
    patients = copies * pattern.id_counts["subject_id"]
    pattern.write(folder / "raw", copies)
    raw = child.run_module("datasets.extract", "--mimic_iv", folder / "raw" / IV, "--out", folder / "store")
    for name in ("raw", "store"):
        shutil.rmtree(folder / name)
    write_meds(events, pattern, copies, folder / "meds")
    meds = child.run_module("datasets.extract", "--meds", folder / "meds", "--out", folder / "store")
    for name in ("meds", "store"):
        shutil.rmtree(folder / name)
    print(
        f"{patients} patients: MEDS {meds.seconds:.1f} s, {meds.core_seconds:.1f} core-s; raw tables "
        f"{raw.seconds:.1f} s, {raw.core_seconds:.1f} core-s", flush=True,
    )  # fmt: skip
    return Size(patients, meds, raw)


def figures(sizes: Sequence[Size], kind: str) -> list[Figure]:
    """Seconds and core-seconds of each size beside the raw tables', and how memory grew."""
    found = []
    for size in sizes:
        work = f"extract MEDS ({kind}): {size.patients} patients"
        meds, raw = size.meds, size.raw
        found += [
            Figure(work, "s", meds.seconds, "raw tables", raw.seconds, meds.peak_mb),
            Figure(f"core-seconds: {work}", "core s", meds.core_seconds, "raw tables", raw.core_seconds),
            Figure(f"memory: {work}", "MB", meds.peak_mb, "raw tables", raw.peak_mb),
        ]
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        work = f"memory: extract MEDS ({kind}), {small.patients} to {large.patients} patients"
        found.append(Figure(work, "MB", large.meds.peak_mb, "the smallest", small.meds.peak_mb))
    return found


def main(config: MEDSBenchmark) -> None:
    """Measure every size, print the table and add the rows."""
    print(f"extraction of synthetic MEDS datasets on {available_cpus()} cores")
    with child.scratch(config.scratch) as folder:
        pattern = Pattern.draw(folder / "pattern", config.pattern, config.mix)
        events = events_of(pattern.tables, config.lab_time)
        copies = sorted({max(1, round(patients / config.pattern)) for patients in config.patients})
        sizes = [measure(pattern, events, count, folder) for count in copies]
    record(config.results, "meds", PACKAGES, figures(sizes, f"{config.lab_time}, {config.mix} mix"))


if __name__ == "__main__":
    run_cli(main, MEDSBenchmark)
