"""Checks that a raw table is complete, and error messages that name the faulty line."""

import csv
import gzip
import io
import itertools
import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import polars as pl

from datasets.raw.cells import InvalidCell
from datasets.raw.tables import DOWNLOAD_AGAIN, RawTable

if TYPE_CHECKING:
    import _csv

LINES_SEARCHED = 10_000_000  # when looking for a faulty line: half a minute


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a table for reading its decompressed bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such file; check the path"
    return f"{path}: not a readable {path.suffix} file ({error}); {DOWNLOAD_AGAIN}"


def check_not_truncated(path: Path) -> None:
    """Check that the last line ends in a newline; a file that was cut within a line gives no other sign."""
    last = b""
    with open_bytes(path) as file:
        if path.suffix != ".gz":
            file.seek(-1, os.SEEK_END)
        while block := file.read(1 << 20):
            last = block[-1:]
    if last != b"\n":
        raise ValueError(
            f"{path}: the last line does not end in a newline, as in a truncated file; {DOWNLOAD_AGAIN}, or "
            "add the newline if the file is complete"
        )


def check_field_counts(path: Path) -> None:
    """Check that lines have as many fields as the header, in a table without line breaks in cells."""
    line, commas = pl.col("line"), pl.col("commas")
    fields = line.str.replace_all(r'"[^"]*"', "").str.count_matches(",", literal=True)
    quotes = line.str.count_matches('"', literal=True)
    counts = (
        pl.scan_lines(path, row_index_name="row", glob=False)
        .filter(line.str.strip_chars_end("\r") != "")
        .select("row", commas=fields, odd_quotes=quotes % 2)
    )
    first_odd = pl.col("row").filter(commas != commas.first()).first()
    summary = counts.select(commas.first(), first_odd, pl.col("odd_quotes").max())
    expected, row, multiline = summary.collect().row(0)
    if row is not None and not multiline:
        raise ValueError(
            f"{path}: line {row + 1} does not have the {expected + 1} fields of the header; {DOWNLOAD_AGAIN}"
        )


@contextmanager
def explain_parse_error(path: Path, table: RawTable) -> Iterator[None]:
    """Replace an error about a table, which may quote a patient's value, by one that names the line."""
    try:
        yield
    except (InvalidCell, pl.exceptions.PolarsError) as error:
        if isinstance(error, InvalidCell):
            fault = f"{_place_of_row(path, error.row)}: {error.column} {error.fault}"
        else:
            fault = find_fault(path, table) or f"Polars stopped with {type(error).__name__}"
        raise ValueError(
            f"{path}: cannot be read as table {table.pattern}: {fault}; {DOWNLOAD_AGAIN}"
        ) from None
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from error


@contextmanager
def _csv_lines(path: Path) -> Iterator["_csv.Reader"]:
    with open_bytes(path) as file:
        yield csv.reader(io.TextIOWrapper(file, "utf-8-sig", "replace", newline=""), strict=True)


def _place_of_row(path: Path, row: int) -> str:
    """Return the line in which a row ends, counted from 0 below the header; its number if that takes long."""
    if path.suffix == ".parquet" or row >= LINES_SEARCHED:
        return f"row {row + 1}"
    with _csv_lines(path) as lines, suppress(csv.Error):
        next(itertools.islice(lines, row + 1, None))
        return f"line {lines.line_num}"
    return f"row {row + 1}"


def find_fault(path: Path, table: RawTable) -> str:
    """Return the first line of a CSV file that is none of a table, and what is wrong with it, or ""."""
    if path.suffix == ".parquet":
        return ""
    with _csv_lines(path) as lines:
        try:
            header = next(lines)
            read = set(table.names_in(header).values())
            for row in itertools.islice(lines, LINES_SEARCHED):
                if fault := _row_fault(row, header, read):
                    return f"line {lines.line_num}: {fault}"
        except csv.Error:
            return f"line {lines.line_num}: a quote is not closed, or is in the middle of a cell"
    return ""


def _row_fault(row: Sequence[str], header: Sequence[str], read: Collection[str]) -> str:
    if len(row) > len(header):
        return f"{len(row)} fields, but the header has {len(header)}"
    for cell, column in zip(row, header, strict=False):
        if column in read and ("\0" in cell or "\ufffd" in cell):
            return f"{column} holds a NUL byte or is not UTF-8"
    return ""
