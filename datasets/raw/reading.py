"""Read raw tables: lazily, or a small one with its times parsed."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from datasets.raw.integrity import check_field_counts, check_not_truncated, explain_parse_error, open_bytes
from datasets.raw.tables import DOWNLOAD_AGAIN, TABLES, TIME_FORMAT, RawTable, find_table

# Polars reads some chunks of decompressed text per core ahead. Small chunks keep its memory flat from a
# million rows on.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", "1000000")
LONGEST_HEADER = 1 << 16  # bytes


def scan_table(
    root: Path, name: str, row_index: str | None = None, truncation_probe: str | None = None
) -> pl.LazyFrame:
    """Scan the columns of a raw table that are read, under our names; times are still text.

    `row_index` names a column to add that counts rows from 0. `truncation_probe` is a column whose right
    neighbour is added as text, named "probe": null in a row that was cut off there.
    """
    table, path = TABLES[name], find_table(root, name)
    header = _read_header(path)
    names = table.names_in(header)
    _check_columns(path, table, header)
    as_read = {c: pl.String if t is pl.Datetime else t for c, t in table.columns.items()}
    types = {raw: as_read[column] for column, raw in names.items()}
    scan = pl.scan_csv(path, infer_schema=False, schema_overrides=types, row_index_name=row_index, glob=False)
    columns = [
        (_empty_to_null(names[column], dtype) if column in names else pl.lit(None, dtype)).alias(column)
        for column, dtype in as_read.items()
    ]
    if row_index:
        columns.insert(0, pl.col(row_index))
    if truncation_probe:
        neighbour = header[min(header.index(truncation_probe) + 1, len(header) - 1)]
        columns.append(pl.col(neighbour).cast(pl.String).alias("probe"))
    return scan.select(columns)


def _read_header(path: Path) -> list[str]:
    with open_bytes(path) as file:
        line = file.readline(LONGEST_HEADER)
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    if not text:
        raise ValueError(f"{path}: the first line, which should name the columns, is empty; {DOWNLOAD_AGAIN}")
    if "\r" in text:
        raise ValueError(
            f"{path}: lines end in CR alone (old Mac format); convert them to LF, or {DOWNLOAD_AGAIN}"
        )
    return next(csv.reader([text]))


def _check_columns(path: Path, table: RawTable, header: Sequence[str]) -> None:
    names = table.names_in(header).values()
    if repeated := [name for name in names if header.count(name) > 1]:
        raise ValueError(f"{path}: column {', '.join(repeated)} is repeated; {DOWNLOAD_AGAIN}")
    if missing := [name for name in names if name not in header]:
        present = [name for name in names if name in header]  # the line itself may hold a patient's values
        raise ValueError(
            f"{path}: column {', '.join(missing)} is missing ({table.releases} have it); of the columns that "
            f"are read, this file has: {', '.join(present) or 'none'}; use an unchanged MIMIC table"
        )


def _empty_to_null(column: str, dtype: type[pl.DataType]) -> pl.Expr:
    """Return a column in which empty text is null, which Polars leaves as it is where it is quoted."""
    return pl.when(pl.col(column) != "").then(pl.col(column)) if dtype is pl.String else pl.col(column)


def parse_times(column: str) -> pl.Expr:
    """Parse text such as `2150-01-31 14:05:00`, or a date alone; anything else is an error of Polars."""
    text = pl.col(column).str.strip_chars()
    full = pl.when(text.str.len_chars() == 10).then(text + " 00:00:00").otherwise(text)
    full = pl.when(text.str.starts_with("-")).then(pl.lit("before our era")).otherwise(full)
    return full.str.to_datetime(TIME_FORMAT, time_unit="us").alias(column)


def read_table(root: Path, name: str) -> pl.DataFrame:
    """Read a small table into memory, with its times parsed and without blank lines."""
    times = [column for column, dtype in TABLES[name].columns.items() if dtype is pl.Datetime]
    path, lazy = find_table(root, name), scan_table(root, name)
    check_not_truncated(path)
    with explain_parse_error(root, name):
        check_field_counts(path)
        table = lazy.with_columns(parse_times(column) for column in times).collect()
    return table.filter(~pl.all_horizontal(pl.all().is_null()))


def check_unique_ids(frame: pl.DataFrame, ids: Sequence[str], name: str) -> None:
    """Check that every row of a raw table has the ids that identify it, and that no other row has them."""
    file = TABLES[name].pattern
    missing = frame.select(pl.any_horizontal(pl.col(ids).is_null()).sum()).item()
    if missing:
        raise ValueError(f"{file}: {missing} rows have no {' or '.join(ids)}; {DOWNLOAD_AGAIN}")
    repeated = frame.filter(pl.struct(ids).is_duplicated())
    if len(repeated):
        first = repeated[ids[0]][0]
        count = (repeated[ids[0]] == first).sum()
        rule = f"{ids[0]} {first} is in {count} rows, but must be unique"
        raise ValueError(f"{file}: {rule}; use the release's file")
