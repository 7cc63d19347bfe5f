"""One lazy reader per raw table of MIMIC-IV and MIMIC-CXR-JPG, for any release, plain or gzipped."""

import csv
import gzip
import io
import itertools
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import polars as pl

from datasets.schema import FINDINGS

# Polars reads ahead some chunks of decompressed text a core; small ones keep its memory flat from a million
# rows on.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", "1000000")

TIME = "%Y-%m-%d %H:%M:%S"
IV = "MIMIC-IV 1.0, 2.x and 3.x"
CXR = "MIMIC-CXR-JPG 2.0.0 and 2.1.0"
AGAIN = "download it again"
LONGEST_HEADER = 1 << 16  # bytes
LINES_SEARCHED = 10_000_000  # for what is wrong with a table: half a minute


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


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A table's bytes, decompressed.

    Raises:
        ValueError: the file cannot be read, or is no whole .gz.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a readable {path.suffix} file ({error}); download it again") from error


def _header(path: Path) -> list[str]:
    with opened(path) as file:
        line = file.readline(LONGEST_HEADER)
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    if not text:
        raise ValueError(f"{path} is empty, or its first line is, which should name the columns; {AGAIN}")
    if "\r" in text:
        raise ValueError(f"{path}: its lines end as on an old Mac, in CR alone; end them in LF; {AGAIN}")
    return next(csv.reader([text]))


def check_not_truncated(path: Path) -> None:
    """ValueError unless the last line of a table ends: what was cut within a line gives no other sign."""
    last = b""
    with opened(path) as file:
        if path.suffix != ".gz":
            file.seek(-1, os.SEEK_END)
        while block := file.read(1 << 20):
            last = block[-1:]
    if last != b"\n":
        cure = "download it again; if it is whole, end that line"
        raise ValueError(f"{path}: its last line has no end, as in a file that was cut off; {cure}")


def check_fields(path: Path) -> None:
    """ValueError, naming the line, if one has another number of fields than the header: its cells moved.

    Not looked at where a cell holds line ends.
    """
    lines = pl.scan_lines(path, row_index_name="row", glob=False)
    commas = pl.col("line").str.replace_all(r'"[^"]*"', "").str.count_matches(",", literal=True)
    quotes = pl.col("line").str.count_matches('"', literal=True)
    counted = lines.filter(pl.col("line").str.strip_chars_end("\r") != "").select(
        "row", commas, quotes=quotes
    )
    odd = pl.col("line") != pl.col("line").first()
    first, moved, split = (
        counted.select(
            pl.col("line").first(),
            pl.col("row").filter(odd).first(),
            (pl.col("quotes") % 2).max().alias("split"),
        )
        .collect()
        .row(0)
    )
    if moved is not None and not split:
        raise ValueError(f"{path}: line {moved + 1} has not the {first + 1} fields of the header; {AGAIN}")


def scan(root: Path, name: str, row_index: str | None = None, behind: str | None = None) -> pl.LazyFrame:
    """The columns that we read of a raw table, by their own names; times are still text.

    `row_index` names a column that counts the file's rows from 0. `behind` names a column whose neighbour to
    the right is read too, as text, under the name "behind": null in a row that was cut off there.

    Raises:
        ValueError: the table or one of its columns is missing.
    """
    table, path = TABLES[name], find_table(root, name)
    header = _header(path)
    names = {
        column: column if column in header else table.aliases.get(column, column) for column in table.columns
    }
    if twice := [column for column in names.values() if header.count(column) > 1]:
        raise ValueError(f"{path}: has the column {', '.join(twice)} twice; {AGAIN}")
    if missing := [column for column in names.values() if column not in header]:
        own = [column for column in names.values() if column in header]  # a first line of values is not told
        raise ValueError(
            f"{path}: lacks the column {', '.join(missing)} ({table.releases} have it; of those that are "
            f"read it has: {', '.join(own) or 'none'}); is this the table of a MIMIC release, unchanged?"
        )
    types = {names[c]: pl.String if t is pl.Datetime else t for c, t in table.columns.items()}
    frame = pl.scan_csv(
        path, infer_schema=False, schema_overrides=types, row_index_name=row_index, glob=False
    )
    kept = [_filled(found, types[found]).alias(column) for column, found in names.items()]
    if behind:
        kept.append(pl.col(_neighbour(header, behind)).cast(pl.String).alias("behind"))
    return frame.select(*([row_index] if row_index else []), *kept)


def _filled(column: str, kind: type[pl.DataType]) -> pl.Expr:
    """A column, in which the text "" is missing too: quoted, it is no null to Polars."""
    return pl.when(pl.col(column) != "").then(pl.col(column)) if kind is pl.String else pl.col(column)


def _neighbour(header: list[str], column: str) -> str:
    """The column to the right, or the last itself."""
    return header[min(header.index(column) + 1, len(header) - 1)]


@contextmanager
def explain_parse_error(root: Path, name: str) -> Iterator[None]:
    """Turn Polars' complaint about a table, which quotes the patient's value, into one error that names the
    line.
    """
    path = find_table(root, name)
    try:
        yield
    except pl.exceptions.PolarsError as error:
        fault = first_fault(path, TABLES[name]) or f"Polars stopped with {type(error).__name__}"
        raise ValueError(f"{path}: cannot be read as a table of this kind: {fault}; {AGAIN}") from None
    except OSError as error:
        raise ValueError(f"{path}: not a readable {path.suffix} file ({error}); {AGAIN}") from error


def first_fault(path: Path, table: RawTable) -> str:
    """The first line that is none of a table, and what is wrong with it, without its values; "" if none is
    found.
    """
    with opened(path) as file:
        lines = csv.reader(io.TextIOWrapper(file, "utf-8-sig", "replace", newline=""), strict=True)
        try:
            header = next(lines)
            kinds = [table.columns.get(name) for name in _own_names(table, header)]
            for row in itertools.islice(lines, LINES_SEARCHED):
                if fault := _fault(row, header, kinds):
                    return f"line {lines.line_num}: {fault}"
        except csv.Error:
            return f"line {lines.line_num}: a quote that is not closed, or stands within a cell"
    return ""


def _own_names(table: RawTable, header: list[str]) -> list[str]:
    ours = {other: name for name, other in table.aliases.items() if name not in header}
    return [ours.get(name, name) for name in header]


def _fault(row: list[str], header: list[str], kinds: list[type[pl.DataType] | None]) -> str:
    if len(row) > len(header):
        return f"{len(row)} fields where the header has {len(header)}"
    for cell, column, kind in zip(row, header, kinds, strict=False):
        if kind and ("\0" in cell or "\ufffd" in cell):
            return f"{column} holds a NUL byte or is not UTF-8"
        if cell and kind in WHAT and not WHAT[kind][1](cell):
            return f"{column} is not {WHAT[kind][0]}"
    return ""


def _is_whole_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,19}", cell, re.ASCII) is not None and -(2**63) <= int(cell) < 2**63


def _is_number(cell: str) -> bool:
    return (
        re.fullmatch(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)", cell, re.I | re.A) is not None
    )


def _is_time(cell: str) -> bool:
    try:
        datetime.strptime(cell.strip() if len(cell.strip()) > 10 else cell.strip() + " 00:00:00", TIME)
    except ValueError:
        return False
    return True


# What a cell of each type must be, in words and as a test; text may be anything.
WHAT = {
    pl.Int64: ("a whole number of 64 bits", _is_whole_number),
    pl.Float64: ("a number", _is_number),
    pl.Datetime: ("a time such as 2150-01-31 14:05:00", _is_time),
}


def timestamps(column: str) -> pl.Expr:
    """Text such as `2150-01-31 14:05:00`, or a date alone, as a time; anything else is an error."""
    text = pl.col(column).str.strip_chars()
    full = pl.when(text.str.len_chars() == 10).then(text + " 00:00:00").otherwise(text)
    full = pl.when(text.str.starts_with("-")).then(pl.lit("before our era")).otherwise(full)
    return full.str.to_datetime(TIME, time_unit="us").alias(column)


def read(root: Path, name: str) -> pl.DataFrame:
    """A whole small table with its times parsed, without blank lines."""
    times = [column for column, kind in TABLES[name].columns.items() if kind is pl.Datetime]
    path, lazy = find_table(root, name), scan(root, name)
    check_not_truncated(path)
    with explain_parse_error(root, name):
        check_fields(path)
        table = lazy.with_columns(timestamps(column) for column in times).collect()
    return table.filter(~pl.all_horizontal(pl.all().is_null()))


def unique(frame: pl.DataFrame, ids: Sequence[str], name: str) -> pl.DataFrame:
    """A raw table; ValueError if a row lacks one of the ids that name it, or two rows have the same."""
    table, row_id = TABLES[name].pattern, ids[0]
    lacking = frame.select(pl.any_horizontal(pl.col(ids).is_null()).sum()).item()
    if lacking:
        raise ValueError(f"{table}: {lacking} rows lack their {' or '.join(ids)}, which name a row; {AGAIN}")
    twice = frame.filter(pl.struct(ids).is_duplicated())
    if len(twice):
        first = twice[row_id][0]
        rows = (twice[row_id] == first).sum()
        raise ValueError(
            f"{table}: {row_id} names a row, but {first} stands in {rows} rows; use the release's file"
        )
    return frame
