"""Checks that a raw table is complete, and error messages that name the faulty line."""

import csv
import gzip
import io
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from datasets.raw.tables import DOWNLOAD_AGAIN, TABLES, TIME_FORMAT, RawTable, find_table

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
def explain_parse_error(root: Path, name: str) -> Iterator[None]:
    """Replace Polars' error about a table, which quotes a patient's value, by one that names the line."""
    path = find_table(root, name)
    try:
        yield
    except pl.exceptions.PolarsError as error:
        fault = find_fault(path, TABLES[name]) or f"Polars stopped with {type(error).__name__}"
        raise ValueError(f"{path}: cannot be read as table {name}: {fault}; {DOWNLOAD_AGAIN}") from None
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from error


def find_fault(path: Path, table: RawTable) -> str:
    """Return the first faulty line of a table and what is wrong with it, without its values, or ""."""
    with open_bytes(path) as file:
        lines = csv.reader(io.TextIOWrapper(file, "utf-8-sig", "replace", newline=""), strict=True)
        try:
            header = next(lines)
            types = {name: table.columns[column] for column, name in table.names_in(header).items()}
            for row in itertools.islice(lines, LINES_SEARCHED):
                if fault := _row_fault(row, header, types):
                    return f"line {lines.line_num}: {fault}"
        except csv.Error:
            return f"line {lines.line_num}: a quote is not closed, or is in the middle of a cell"
    return ""


def _row_fault(row: Sequence[str], header: Sequence[str], types: dict[str, type[pl.DataType]]) -> str:
    if len(row) > len(header):
        return f"{len(row)} fields, but the header has {len(header)}"
    for cell, column in zip(row, header, strict=False):
        if column not in types:
            continue
        if "\0" in cell or "\ufffd" in cell:
            return f"{column} holds a NUL byte or is not UTF-8"
        what, is_valid = CELL_CHECKS[types[column]]
        if cell and not is_valid(cell):
            return f"{column} is not {what}"
    return ""


def _is_int64(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,19}", cell, re.ASCII) is not None and -(2**63) <= int(cell) < 2**63


def _is_number(cell: str) -> bool:
    pattern = r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)"
    return re.fullmatch(pattern, cell, re.IGNORECASE | re.ASCII) is not None


def _is_time(cell: str) -> bool:
    text = cell.strip()
    try:
        datetime.strptime(text if len(text) > 10 else f"{text} 00:00:00", TIME_FORMAT)
    except ValueError:
        return False
    return True


CELL_CHECKS: dict[type[pl.DataType], tuple[str, Callable[[str], bool]]] = {
    pl.Int64: ("a 64-bit integer", _is_int64),
    pl.Float64: ("a number", _is_number),
    pl.Datetime: ("a time such as 2150-01-31 14:05:00", _is_time),
    pl.String: ("text", lambda cell: True),
}
