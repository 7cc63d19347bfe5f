"""Read raw tables, CSV or Parquet: lazily, or a small one in the types of its columns."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from datasets.raw.cells import convert
from datasets.raw.integrity import check_field_counts, check_not_truncated, explain_parse_error, open_bytes
from datasets.raw.tables import DOWNLOAD_AGAIN, ITEM_TABLES, SUFFIXES, TABLES, RawTable, find_files

# Polars reads some chunks of decompressed text per core ahead. Small chunks keep its memory flat from a
# million rows on.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", "1000000")
LONGEST_HEADER = 1 << 16  # bytes


def scan_file(
    path: Path, table: RawTable, as_text: bool = False, row_index: str | None = None, probe: str | None = None
) -> pl.LazyFrame:
    """Scan the columns of a file that are read, under our names, for `cells.convert`.

    Integers and numbers of CSV files are parsed while scanning, which is fastest, unless they are wanted
    `as_text`; their times are text. `row_index` names a column to add that counts rows from 0. `probe` is a
    column whose right neighbour is added as text, named "probe": null in a row that was cut off there.

    Raises:
        ValueError: The file is no table, or one of the columns is missing.
    """
    if path.suffix == ".parquet":
        return _scan_parquet(path, table, row_index, probe)
    header = _read_header(path)
    names = table.names_in(header)
    _check_columns(path, table, header)
    parsed = () if as_text else (pl.Int64, pl.Float64)
    types = {column: dtype if dtype in parsed else pl.String for column, dtype in table.columns.items()}
    scan = pl.scan_csv(
        path,
        infer_schema=False,
        schema_overrides={raw: types[column] for column, raw in names.items()},
        row_index_name=row_index,
        glob=False,
    )
    columns = [
        (_empty_to_null(names[column], dtype) if column in names else pl.lit(None, dtype)).alias(column)
        for column, dtype in types.items()
    ]
    if row_index:
        columns.insert(0, pl.col(row_index))
    if probe:
        neighbour = header[min(header.index(names[probe]) + 1, len(header) - 1)]
        columns.append(pl.col(neighbour).cast(pl.String).alias("probe"))
    return scan.select(columns)


def _scan_parquet(path: Path, table: RawTable, row_index: str | None, probe: str | None) -> pl.LazyFrame:
    try:
        scan = pl.scan_parquet(path, row_index_name=row_index, glob=False, hive_partitioning=False)
        schema = scan.collect_schema()
    except (pl.exceptions.PolarsError, OSError):
        raise ValueError(f"{path}: not a readable Parquet file; {DOWNLOAD_AGAIN}") from None
    header = [column for column in schema if column != row_index]
    names = table.names_in(header)
    _check_columns(path, table, header)
    columns = [
        _typed(pl.col(names[column]), schema[names[column]], dtype).alias(column)
        if column in names
        else pl.lit(None, dtype).alias(column)
        for column, dtype in table.columns.items()
    ]
    if row_index:
        columns.insert(0, pl.col(row_index))
    if probe:
        columns.append(pl.lit("complete").alias("probe"))  # a Parquet file that is cut off cannot be opened
    return scan.select(columns)


def _typed(cells: pl.Expr, raw: pl.DataType, dtype: type[pl.DataType]) -> pl.Expr:
    """Return a Parquet column in its type where that loses nothing, else as text."""
    if raw == pl.Null or (dtype is pl.Int64 and (raw.is_integer() or raw == pl.Boolean)):
        return cells.cast(dtype)
    if dtype is pl.Float64 and raw.is_numeric():
        return cells.cast(pl.Float64)
    return cells if dtype is pl.Datetime and raw in (pl.Date, pl.Datetime) else cells.cast(pl.String)


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
    names = table.names_in(header)
    folded = [raw.strip().lower() for raw in header]
    if repeated := [
        raw
        for column, raw in names.items()
        if (header.count(raw) if raw == column else folded.count(raw.strip().lower())) > 1
    ]:
        raise ValueError(f"{path}: column {', '.join(repeated)} is repeated; {DOWNLOAD_AGAIN}")
    if missing := [raw for raw in names.values() if raw not in header]:
        present = [raw for raw in names.values() if raw in header]  # the line may hold a patient's values
        raise ValueError(
            f"{path}: column {', '.join(missing)} is missing ({table.releases} have it); of the columns that "
            f"are read, this file has: {', '.join(present) or 'none'}; use an unchanged MIMIC table"
        )


def _empty_to_null(column: str, dtype: type[pl.DataType]) -> pl.Expr:
    """Return a column in which empty text is null, which Polars leaves as it is where it is quoted."""
    return pl.when(pl.col(column) != "").then(pl.col(column)) if dtype is pl.String else pl.col(column)


def read_table(root: Path, name: str) -> pl.DataFrame:
    """Read a small table into memory, with its times parsed and without blank lines."""
    return pl.concat([read_file(path, TABLES[name]) for path in find_files(root, name)])


def read_known_items(root: Path) -> dict[str, frozenset[int]]:
    """Read the items of the dictionaries that a release has, by their source (`chart`, `lab`)."""
    known = {}
    for source, table in ITEM_TABLES.items():
        places = [root / folder / f"{table.pattern}{end}" for folder in table.folders for end in SUFFIXES]
        if found := [path for path in places if path.is_file()]:
            known[source] = frozenset(read_file(found[0], table)["itemid"])
    return known


def read_file(path: Path, table: RawTable) -> pl.DataFrame:
    """Read a file of a small table as `read_table` does."""
    scan = scan_file(path, table)
    is_csv = path.suffix != ".parquet"
    if is_csv:
        check_not_truncated(path)
    with explain_parse_error(path, table):
        if is_csv:
            check_field_counts(path)
        try:
            frame = scan.collect()
        except pl.exceptions.PolarsError:
            if not is_csv:
                raise
            frame = scan_file(path, table, as_text=True).collect()
        frame = convert(frame, table.columns)
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))


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
