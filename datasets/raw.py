"""One lazy reader per raw table of MIMIC-IV and MIMIC-CXR-JPG, for any release, plain or gzipped."""

import csv
import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from datasets.schema import FINDINGS

# Polars reads ahead some chunks of decompressed text a core; small ones keep its memory flat from a million
# rows on.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", "1000000")

TIME = "%Y-%m-%d %H:%M:%S"
IV = "MIMIC-IV 1.0, 2.x and 3.x"
CXR = "MIMIC-CXR-JPG 2.0.0 and 2.1.0"


@dataclass(frozen=True)
class RawTable:
    """Where a table may lie, which columns we read of it, and which releases have them.

    `columns` maps a name to its type; pl.Datetime columns are text in the file. `aliases` maps our name to
    the other name that some releases give the column.
    """

    pattern: str
    folders: tuple[str, ...]
    releases: str
    columns: dict[str, type[pl.DataType]]
    aliases: dict[str, str]


def _table(
    pattern: str,
    folders: str,
    releases: str,
    aliases: dict[str, str] | None = None,
    **columns: type[pl.DataType],
) -> RawTable:
    return RawTable(pattern, tuple(folders.split()), releases, columns, aliases or {})


TABLES = {
    "patients": _table(
        "patients", "hosp core", IV,
        subject_id=pl.Int64, gender=pl.String, anchor_age=pl.Int64, anchor_year=pl.Int64, dod=pl.Datetime,
    ),
    "admissions": _table(
        "admissions", "hosp core", IV, {"race": "ethnicity"},
        subject_id=pl.Int64, hadm_id=pl.Int64, admittime=pl.Datetime, dischtime=pl.Datetime,
        deathtime=pl.Datetime, race=pl.String,
    ),
    "diagnoses_icd": _table(
        "diagnoses_icd", "hosp", IV,
        subject_id=pl.Int64, hadm_id=pl.Int64, icd_code=pl.String, icd_version=pl.Int64,
    ),
    "icustays": _table(
        "icustays", "icu", IV,
        subject_id=pl.Int64, hadm_id=pl.Int64, stay_id=pl.Int64, first_careunit=pl.String,
        last_careunit=pl.String, intime=pl.Datetime, outtime=pl.Datetime, los=pl.Float64,
    ),
    "chartevents": _table(
        "chartevents", "icu", IV,
        hadm_id=pl.Int64, stay_id=pl.Int64, charttime=pl.Datetime, itemid=pl.Int64, value=pl.String,
    ),
    "labevents": _table(
        "labevents", "hosp", IV, hadm_id=pl.Int64, charttime=pl.Datetime, itemid=pl.Int64, value=pl.String
    ),
    "metadata": _table(
        "mimic-cxr-*-metadata", ".", CXR,
        dicom_id=pl.String, subject_id=pl.Int64, study_id=pl.Int64, ViewPosition=pl.String,
        StudyDate=pl.Int64, StudyTime=pl.Float64,
    ),
    "chexpert": _table(
        "mimic-cxr-*-chexpert", ".", CXR,
        subject_id=pl.Int64, study_id=pl.Int64,
        **dict.fromkeys(FINDINGS, pl.Float64),
    ),
}  # fmt: skip


def find_table(root: Path, name: str) -> Path:
    """Path of a raw table below `root`: `.csv.gz` or `.csv`, in any of its folders.

    Raises:
        ValueError: no file, or several; says which were looked for and which releases have the table.
    """
    table = TABLES[name]
    wanted = [f"{folder}/{table.pattern}.csv{end}" for folder in table.folders for end in (".gz", "")]
    found = [path for pattern in wanted for path in sorted(root.glob(pattern))]
    names = ", ".join(w.removeprefix("./") for w in wanted)
    if not found:
        cure = "check the folder given, or download the table from PhysioNet"
        raise ValueError(f"{root}: no table {name}: looked for {names} ({table.releases} have it); {cure}")
    if len(found) > 1:
        raise ValueError(
            f"{root}: table {name} is there {len(found)} times: {', '.join(map(str, found))}; keep one"
        )
    return found[0]


def _header(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as lines:
            return next(csv.reader(lines), [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable {path.suffix} file ({error}); download it again") from error


def scan(root: Path, name: str, row_index: str | None = None) -> pl.LazyFrame:
    """The columns that we read of a raw table, by their own names; times are still text.

    `row_index` names a column that counts the file's rows from 0.

    Raises:
        ValueError: the table or one of its columns is missing.
    """
    table, path = TABLES[name], find_table(root, name)
    header = _header(path)
    names = {
        column: column if column in header else table.aliases.get(column, column) for column in table.columns
    }
    if missing := [column for column in names.values() if column not in header]:
        raise ValueError(
            f"{path}: lacks the column {', '.join(missing)} ({table.releases} have it; "
            f"found: {', '.join(header)}); is this the table of a MIMIC release, unchanged?"
        )
    types = {names[c]: pl.String if t is pl.Datetime else t for c, t in table.columns.items()}
    frame = pl.scan_csv(path, infer_schema=False, schema_overrides=types, row_index_name=row_index)
    kept = [pl.col(found).alias(column) for column, found in names.items()]
    return frame.select(*([row_index] if row_index else []), *kept)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn Polars' complaint about a file into one error that names the file and the cure."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise ValueError(
            f"{path}: cannot be read as a table of this kind: {reason}; download it again"
        ) from error


def timestamps(column: str) -> pl.Expr:
    """Text such as `2180-07-23 14:05:00`, or a date alone, as a time; anything else is an error."""
    text = pl.col(column).str.strip_chars()
    full = pl.when(text.str.len_chars() == 10).then(text + " 00:00:00").otherwise(text)
    return full.str.to_datetime(TIME, time_unit="us").alias(column)


def read(root: Path, name: str) -> pl.DataFrame:
    """A whole small table with its times parsed."""
    times = [column for column, kind in TABLES[name].columns.items() if kind is pl.Datetime]
    with told(find_table(root, name)):
        return scan(root, name).with_columns(timestamps(column) for column in times).collect()
