"""Faulty raw tables: each is extracted, and the store is compared with that of a clean table."""

import csv
import gzip
import hashlib
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from datasets.extract_config import ExtractConfig
from datasets.raw.tables import TABLES, find_files
from tasks import TASKS
from tests.fuzz.cases import CommandResult, Failure, Fault, Workspace, check_result, pick, run
from tests.random_cohort import random_cohort
from tests.stores import extract_with_samples

COHORTS, SUBJECTS = 4, 3
PLANTED = "Zq7patient"  # stands for a patient's value, which no message may quote
ALL = tuple(TABLES)
EVENTS = ("chartevents", "labevents")
KEYS = {"patients": "subject_id", "admissions": "hadm_id", "icustays": "stay_id", "metadata": "dicom_id",
        "chexpert": "study_id"}  # fmt: skip
Content = bytes


@dataclass(frozen=True)
class Table:
    """A raw table as text."""

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def content(self, end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> Content:
        """The table as a file."""
        text = io.StringIO()
        csv.writer(text, lineterminator=end, quoting=quoting).writerows([self.header, *self.rows])
        return text.getvalue().encode()

    def read_columns(self, *kinds: type[pl.DataType]) -> list[str]:
        """Columns of the table that the extraction reads, of some types or of all."""
        columns = TABLES[self.name].columns.items()
        return [c for c, kind in columns if c in self.header and (not kinds or kind in kinds)]

    def cell(self, row: int, column: str) -> str:
        """A cell."""
        return self.rows[row][self.header.index(column)]

    def with_cell(self, row: int, column: str, text: str) -> "Table":
        """The table with another cell."""
        cells = list(self.rows[row])
        cells[self.header.index(column)] = text
        return replace(self, rows=(*self.rows[:row], tuple(cells), *self.rows[row + 1 :]))

    def without(self, *removed: int) -> "Table":
        """The table without some rows."""
        return replace(self, rows=tuple(row for i, row in enumerate(self.rows) if i not in removed))


@dataclass(frozen=True)
class Faulty:
    """A faulty table.

    `same_as` are clean tables whose store is a right result; `error`: whether it may be refused; `packed`:
    whether the content is already compressed; `lists`: files of the store that list the fault.
    """

    content: Content
    same_as: tuple[Table, ...] = ()
    error: bool = True
    file: Literal["any", "csv", "gz"] = "any"
    packed: bool = False
    lists: tuple[str, ...] = ()


Make = Callable[[np.random.Generator, Table], Faulty]


def some_row(draw: np.random.Generator, table: Table, column: str = "") -> int:
    """A row of a table, one with a value in the column if there is one."""
    rows = [i for i, row in enumerate(table.rows) if not column or row[table.header.index(column)]]
    return pick(draw, rows or range(len(table.rows)))


def with_line(table: Table, row: int, line: bytes) -> Content:
    """The table with another line for a row."""
    lines = table.content().split(b"\n")
    return b"\n".join([*lines[: row + 1], line, *lines[row + 2 :]])


def line_of(table: Table, row: int) -> bytes:
    """A row's line."""
    return table.content().split(b"\n")[row + 1]


# Columns and lines.


def missing_column(draw: np.random.Generator, table: Table) -> Faulty:
    optional = TABLES[table.name].optional
    removed = table.header.index(pick(draw, [c for c in table.read_columns() if c not in optional]))
    rows = [row[:removed] + row[removed + 1 :] for row in (table.header, *table.rows)]
    return Faulty(Table(table.name, rows[0], tuple(rows[1:])).content())


def unread_column_missing(draw: np.random.Generator, table: Table) -> Faulty:
    unread = [i for i, name in enumerate(table.header) if name not in table.read_columns()]
    removed = set(unread[: draw.integers(1, len(unread) + 1)]) if unread else set()
    rows = [tuple(c for i, c in enumerate(row) if i not in removed) for row in (table.header, *table.rows)]
    return Faulty(Table(table.name, rows[0], tuple(rows[1:])).content(), (table,), error=False)


def extra_column(draw: np.random.Generator, table: Table) -> Faulty:
    index = int(draw.integers(len(table.header) + 1))
    name, cell = pick(draw, ("note", "", "Unnamed: 0", "ünit")), pick(draw, ("", "7", "a, b", 'say "x"', "é"))
    rows = [(*r[:index], c, *r[index:]) for r, c in ((table.header, name), *((r, cell) for r in table.rows))]
    return Faulty(Table(table.name, rows[0], tuple(rows[1:])).content(), (table,), error=False)


def reordered_columns(draw: np.random.Generator, table: Table) -> Faulty:
    order = draw.permutation(len(table.header))
    rows = [tuple(row[index] for index in order) for row in (table.header, *table.rows)]
    return Faulty(Table(table.name, rows[0], tuple(rows[1:])).content(), (table,), error=False)


def duplicated_column_name(draw: np.random.Generator, table: Table) -> Faulty:
    name = pick(draw, table.read_columns())
    rows = [(*table.header, name), *((*row, pick(draw, table.rows)[0]) for row in table.rows)]
    return Faulty(Table(table.name, rows[0], tuple(rows[1:])).content())


def rows_out_of_order(draw: np.random.Generator, table: Table) -> Faulty:
    rows = tuple(table.rows[index] for index in draw.permutation(len(table.rows)))
    return Faulty(replace(table, rows=rows).content(), (table,), error=False)


def windows_line_ends(draw: np.random.Generator, table: Table) -> Faulty:
    return Faulty(table.content("\r\n"), (table,), error=False)


def old_mac_line_ends(draw: np.random.Generator, table: Table) -> Faulty:
    return Faulty(table.content("\r"), (table,))


def byte_order_mark(draw: np.random.Generator, table: Table) -> Faulty:
    return Faulty(b"\xef\xbb\xbf" + table.content(), (table,), error=False)


def quoted_cells(draw: np.random.Generator, table: Table) -> Faulty:
    return Faulty(table.content(quoting=csv.QUOTE_ALL), (table,), error=False)


def blank_lines(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    line = line_of(table, row)
    return Faulty(with_line(table, row, line + b"\n" * int(draw.integers(2, 4))), (table,))


def spaces_around(draw: np.random.Generator, table: Table) -> Faulty:
    column = pick(draw, table.read_columns())
    row = some_row(draw, table, column)
    space = pick(draw, (" {}", "{} ", "\t{}"))
    alike = (table, table.without(row)) if table.name in EVENTS else (table,)
    if column in ("gender", "race", "first_careunit", "last_careunit", "ViewPosition", "dicom_id"):
        return Faulty(table.content(), (table,))  # text is itself
    return Faulty(table.with_cell(row, column, space.format(table.cell(row, column))).content(), alike)


# Files that are incomplete or damaged.


def torn_last_line(draw: np.random.Generator, table: Table) -> Faulty:
    content = table.content()
    cut = int(draw.integers(1, len(line_of(table, len(table.rows) - 1)) + 1))
    return Faulty(content[:-cut], (table,), file="csv")


def torn_before_it_was_gzipped(draw: np.random.Generator, table: Table) -> Faulty:
    alike = (table, table.without(len(table.rows) - 1)) if table.name in EVENTS else (table,)
    return replace(torn_last_line(draw, table), file="gz", same_as=alike)


def gz_cut_off(draw: np.random.Generator, table: Table) -> Faulty:
    packed = gzip.compress(table.content())
    return Faulty(packed[: draw.integers(0, len(packed))], file="gz", packed=True)


def gz_flipped_bit(draw: np.random.Generator, table: Table) -> Faulty:
    packed = bytearray(gzip.compress(table.content()))
    packed[draw.integers(len(packed))] ^= 1 << int(draw.integers(8))
    return Faulty(bytes(packed), (table,), file="gz", packed=True)


def junk_after_gz(draw: np.random.Generator, table: Table) -> Faulty:
    packed = gzip.compress(table.content())
    return Faulty(packed + draw.bytes(int(draw.integers(1, 60))), (table,), file="gz", packed=True)


def no_gz_inside(draw: np.random.Generator, table: Table) -> Faulty:
    return Faulty(table.content(), (table,), file="gz", packed=True)


def gz_called_csv(draw: np.random.Generator, table: Table) -> Faulty:
    return Faulty(gzip.compress(table.content()), (table,), file="csv")


def empty_file(draw: np.random.Generator, table: Table) -> Faulty:
    content = pick(draw, (b"", b"\n", b"\r\n", b"\n\n\n"))
    return Faulty(content, file=pick(draw, ("csv", "gz")), packed=bool(draw.integers(2)))


def header_alone(draw: np.random.Generator, table: Table) -> Faulty:
    return Faulty(replace(table, rows=()).content())


def another_table(draw: np.random.Generator, table: Table) -> Faulty:
    # The header of another table; that of chartevents has all columns of labevents.
    other = pick(
        draw, [n for n in ALL if n != table.name and (table.name, n) != ("labevents", "chartevents")]
    )
    header = ",".join(TABLES[other].columns)
    return Faulty(f"{header}\n{',' * header.count(',')}\n".encode())


def not_a_table(draw: np.random.Generator, table: Table) -> Faulty:
    page, wide = b"<html>not found</html>\n" * 3, b"\xff\xfe" + table.content().decode().encode("utf-16-le")
    archive = b"PK\x03\x04" + draw.bytes(90)
    content = pick(draw, (draw.bytes(300), page, wide, archive, b"\0" * 500))
    return Faulty(content, file=pick(draw, ("csv", "gz")))


# Cells.


def null_bytes(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    line = bytearray(line_of(table, row))
    start = int(draw.integers(len(line)))
    length = int(draw.integers(1, 1 + min(12, len(line) - start)))
    line[start : start + length] = b"\0" * length
    alike = _if_only_unread_changed(table, row, bytes(line))
    return Faulty(with_line(table, row, bytes(line)), (*alike, *_without_event(table, row)))


def not_utf8(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    line = bytearray(line_of(table, row))
    line[int(draw.integers(len(line)))] = int(draw.integers(128, 256))
    alike = _if_only_unread_changed(table, row, bytes(line))
    return Faulty(with_line(table, row, bytes(line)), (*alike, *_without_event(table, row)))


def _cells(table: Table, line: bytes) -> list[str]:
    return next(csv.reader([line.decode("latin-1").replace("\0", "\x01")]), [])


def _if_only_unread_changed(table: Table, row: int, line: bytes) -> tuple[Table, ...]:
    """The clean table, if the damaged line has the same cells in the columns that are read."""
    cells = dict(zip(table.header, _cells(table, line), strict=False))
    complete = len(_cells(table, line)) == len(table.header)
    same = all(cells.get(column) == table.cell(row, column) for column in table.read_columns())
    return (table,) if complete and same else ()


def _without_event(table: Table, row: int) -> tuple[Table, ...]:
    """The table without an event that cannot be used."""
    return (table.without(row),) if table.name in EVENTS else ()


def wrong_type(draw: np.random.Generator, table: Table) -> Faulty:
    column = pick(draw, table.read_columns(pl.Int64, pl.Float64, pl.Datetime))
    row = some_row(draw, table, column)
    alike = _without_event(table, row) if column == "charttime" else ()
    return Faulty(table.with_cell(row, column, PLANTED).content(), alike)


def id_with_a_decimal_point(draw: np.random.Generator, table: Table) -> Faulty:
    column = pick(draw, table.read_columns(pl.Int64))
    row = some_row(draw, table, column)
    return Faulty(table.with_cell(row, column, table.cell(row, column) + ".0").content(), (table,))


def id_beyond_64_bits(draw: np.random.Generator, table: Table) -> Faulty:
    column = pick(draw, table.read_columns(pl.Int64))
    text = pick(draw, ("9223372036854775808", "-9223372036854775809", "1" * 40))
    return Faulty(table.with_cell(some_row(draw, table), column, text).content())


def no_id(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    if table.name in ("patients", "admissions", "icustays", "metadata"):
        return Faulty(table.with_cell(row, KEYS[table.name], "").content())
    column = "hadm_id" if "hadm_id" in table.header else "study_id"
    return Faulty(table.with_cell(row, column, "").content(), (table.without(row),))


def repeated_rows(draw: np.random.Generator, table: Table) -> Faulty:
    again = replace(table, rows=(*table.rows, *(pick(draw, table.rows) for _ in range(3))))
    counted = ("value_counts.csv",)  # which counts a repeated row again
    return Faulty(again.content(), (table,), error=table.name in KEYS, lists=counted)


def same_id_twice(draw: np.random.Generator, table: Table) -> Faulty:
    kept = (KEYS[table.name], "subject_id")
    cells = dict(zip(table.header, pick(draw, table.rows), strict=True))
    cells[pick(draw, [column for column in table.header if column not in kept])] = ""
    return Faulty(replace(table, rows=(*table.rows, tuple(cells.values()))).content())


def lost_field(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    cells = list(table.rows[row])
    del cells[int(draw.integers(len(cells)))]
    line = ",".join(cells).encode()
    last = table.rows[row][-1]
    short = table.with_cell(row, table.header[-1], "") if (*cells, last) == table.rows[row] else None
    alike = [*([short] if short else []), *_without_event(table, row)]
    return Faulty(with_line(table, row, line), tuple(alike))


def extra_field(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    cells = list(table.rows[row])
    cells.insert(int(draw.integers(len(cells) + 1)), pick(draw, ("", "1", "x")))
    return Faulty(with_line(table, row, ",".join(cells).encode()), _without_event(table, row))


def stray_quote(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    line = bytearray(line_of(table, row))
    line.insert(int(draw.integers(len(line) + 1)), ord('"'))
    column = table.header[min(line[: line.index(b'"')].count(b","), len(table.header) - 1)]
    alike = (table,) if column not in table.read_columns() else ()
    return Faulty(with_line(table, row, bytes(line)), (*alike, *_without_event(table, row)))


# Values.


def odd_value(draw: np.random.Generator, table: Table) -> Faulty:
    """A charted value that is not a usable number counts as not charted."""
    row = some_row(draw, table)
    odd = ("NaN", "nan", "inf", "-inf", "Infinity", "1e309", "-1e400", "1e39", "-3.5e38", "0x1F", "1_000",
           "1,5", "12 34", "--5", "+-3", "1e", "٣", "None", "\\N", PLANTED, "120/", "/", "½")  # fmt: skip
    return Faulty(
        table.with_cell(row, "value", pick(draw, odd)).content(), (table.without(row),), error=False
    )


def odd_length_of_stay(draw: np.random.Generator, table: Table) -> Faulty:
    odd = ("NaN", "inf", "-inf", "1e309", "-1e309", "1e300", "1e12", "0", "-0.0", "-3.5", "400")
    row = some_row(draw, table)
    return Faulty(table.with_cell(row, "los", pick(draw, odd)).content(), (table.with_cell(row, "los", ""),))


def stay_ends_before_it_starts(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    start, end, los = (table.cell(row, column) for column in ("intime", "outtime", "los"))
    turned = table.with_cell(row, "intime", end).with_cell(row, "outtime", start)
    turned = turned.with_cell(row, "los", pick(draw, (los, f"-{los}")))
    return Faulty(turned.content(), (turned.with_cell(row, "los", ""),))


def stay_of_centuries(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    year = int(pick(draw, (2160, 2400, 9999)))
    days = (np.datetime64(f"{year}-06-01") - np.datetime64(table.cell(row, "intime")[:10])).astype(int)
    long = table.with_cell(row, "outtime", f"{year}-06-01" + table.cell(row, "intime")[10:])
    return Faulty(long.with_cell(row, "los", f"{days}.0").content(), (long.with_cell(row, "los", ""),))


TIME_FORMATS = (
    "{Y}-{m}-{d}T{H}:{M}:{S}", "{Y}/{m}/{d} {H}:{M}:{S}", "{d}/{m}/{Y} {H}:{M}", "{Y}{m}{d} {H}{M}{S}",
    "{Y}-{m}-{d} {H}:{M}:{S}.000", "{Y}-{m}-{d} {H}:{M}:{S}Z", "{Y}-{m}-{d} {H}:{M}:{S}+00:00",
    "{Y}-{m}-{d}  {H}:{M}:{S}", "{Y}-{m}-{d} {H}:{M}",
)  # fmt: skip
NO_TIMES = (
    "2150-02-30 00:00:00", "2150-13-01 10:00:00", "2150-01-01 25:00:00", "0000-00-00 00:00:00",
    "2150-01-01 10:61:00", "99999-01-01 00:00:00", "-1-01-01 00:00:00", "1e309", "2150-01-01 14:05:60",
    "50-01-01 14:05:00", "0050-01-01 14:05:00", "2150-01-01T14:05:00+02:00",
)  # fmt: skip
NO_DIAGNOSES = (
    ("icd_version", "11"), ("icd_version", ""), ("icd_code", ""), ("icd_version", "0"),
    ("icd_code", "no such code"), ("icd_version", "-9"),
)  # fmt: skip
NO_STUDY_TIMES = (
    ("StudyDate", "99999999"), ("StudyDate", "0"), ("StudyDate", "-1"), ("StudyDate", ""),
    ("StudyDate", "21500230"), ("StudyTime", "NaN"), ("StudyTime", "inf"), ("StudyTime", "1e309"),
    ("StudyTime", "-1"), ("StudyTime", "250000"), ("StudyTime", "126000.0"), ("StudyTime", ""),
    ("StudyTime", "1e18"),
)  # fmt: skip
NO_IMAGE_NAMES = (
    "../../../p10/outside", "/etc/passwd", "", ".", "..", "a/b", "x" * 300, "new\nline", "a\0b",
)  # fmt: skip


def _times(table: Table) -> list[str]:
    return [
        c for c in table.read_columns(pl.Datetime) if any(table.cell(r, c) for r in range(len(table.rows)))
    ]


def mixed_time_formats(draw: np.random.Generator, table: Table) -> Faulty:
    column = pick(draw, _times(table))
    row = some_row(draw, table, column)
    day, clock = (*table.cell(row, column).split(" "), "00:00:00")[:2]
    parts = dict(zip("YmdHMS", (*day.split("-"), *clock.split(":")), strict=True))
    text = pick(draw, TIME_FORMATS).format(**parts)
    clean = table.with_cell(row, column, f"{day} {clock}")
    to_the_minute = table.with_cell(row, column, f"{day} {clock[:5]}:00")
    alike = (clean, to_the_minute, *_without_event(table, row))
    return Faulty(table.with_cell(row, column, text).content(), alike)


def date_without_time(draw: np.random.Generator, table: Table) -> Faulty:
    column = pick(draw, [c for c in _times(table) if c not in ("intime", "outtime")])
    row = some_row(draw, table, column)
    day = table.cell(row, column)[:10]
    clean = table.with_cell(row, column, f"{day} 00:00:00")
    return Faulty(table.with_cell(row, column, day).content(), (clean,), error=False)


def impossible_time(draw: np.random.Generator, table: Table) -> Faulty:
    column = pick(draw, _times(table))
    row = some_row(draw, table, column)
    return Faulty(table.with_cell(row, column, pick(draw, NO_TIMES)).content(), _without_event(table, row))


def odd_diagnosis(draw: np.random.Generator, table: Table) -> Faulty:
    row = some_row(draw, table)
    content = table.with_cell(row, *pick(draw, NO_DIAGNOSES)).content()
    return Faulty(content, (table.without(row),), lists=("unmatched_codes.csv", "diagnoses.parquet"))


def odd_finding(draw: np.random.Generator, table: Table) -> Faulty:
    text = pick(draw, ("2", "0.5", "-2", "inf", "1e309", "NaN"))
    row = some_row(draw, table, "Edema")
    return Faulty(
        table.with_cell(row, "Edema", text).content(),
        (table.with_cell(row, "Edema", ""),) if text == "NaN" else (),
    )


def odd_study_time(draw: np.random.Generator, table: Table) -> Faulty:
    """An X-ray whose time is invalid cannot be linked."""
    row = some_row(draw, table)
    return Faulty(table.with_cell(row, *pick(draw, NO_STUDY_TIMES)).content(), (table.without(row),))


def odd_image_name(draw: np.random.Generator, table: Table) -> Faulty:
    """A name that leads out of the release's folder is not an image of it."""
    row = some_row(draw, table)
    named = table.with_cell(row, "dicom_id", pick(draw, NO_IMAGE_NAMES))
    return Faulty(named.content(), (table.without(row),))


FAULTS: dict[str, tuple[Make, Sequence[str]]] = {
    "missing column": (missing_column, ALL),
    "unread column missing": (unread_column_missing, ALL),
    "extra column": (extra_column, ALL),
    "reordered columns": (reordered_columns, ALL),
    "column name twice": (duplicated_column_name, ALL),
    "rows out of order": (rows_out_of_order, ALL),
    "Windows line ends": (windows_line_ends, ALL),
    "old Mac line ends": (old_mac_line_ends, ALL),
    "byte order mark": (byte_order_mark, ALL),
    "all cells quoted": (quoted_cells, ALL),
    "blank lines": (blank_lines, ALL),
    "spaces around a cell": (spaces_around, ALL),
    "torn last line": (torn_last_line, ALL),
    "torn before it was gzipped": (torn_before_it_was_gzipped, ALL),
    "gz cut off": (gz_cut_off, ALL),
    "gz with a flipped bit": (gz_flipped_bit, ALL),
    "junk after the gz": (junk_after_gz, ALL),
    ".gz that is not gzipped": (no_gz_inside, ALL),
    "gz called .csv": (gz_called_csv, ALL),
    "empty file": (empty_file, ALL),
    "header alone": (header_alone, ("patients", "admissions", "icustays")),
    "another table's file": (another_table, ALL),
    "not a table": (not_a_table, ALL),
    "NUL bytes": (null_bytes, ALL),
    "not UTF-8": (not_utf8, ALL),
    "wrong type": (wrong_type, ALL),
    "id with a decimal point": (id_with_a_decimal_point, ALL),
    "id beyond 64 bits": (id_beyond_64_bits, ALL),
    "no id": (no_id, [name for name in ALL if name != "diagnoses_icd"]),
    "repeated rows": (repeated_rows, ALL),
    "same id twice": (same_id_twice, list(KEYS)),
    "lost field": (lost_field, ALL),
    "extra field": (extra_field, ALL),
    "stray quote": (stray_quote, ALL),
    "NaN, inf, 1e309 as a value": (odd_value, EVENTS),
    "NaN, inf, 1e309 as a length of stay": (odd_length_of_stay, ["icustays"]),
    "stay ends before it starts": (stay_ends_before_it_starts, ["icustays"]),
    "stay of centuries": (stay_of_centuries, ["icustays"]),
    "mixed time formats": (mixed_time_formats, ["icustays", "admissions", *EVENTS]),
    "date without time": (date_without_time, ["admissions", *EVENTS]),
    "impossible time": (impossible_time, ["icustays", "admissions", *EVENTS]),
    "odd diagnosis": (odd_diagnosis, ["diagnoses_icd"]),
    "odd finding": (odd_finding, ["chexpert"]),
    "odd time of a study": (odd_study_time, ["metadata"]),
    "odd name of an image": (odd_image_name, ["metadata"]),
}


# The command, and how its store is compared.

_RIGHT: dict[tuple[str, str, str, str], dict[str, str]] = {}


def clean_cohort(workspace: Workspace, seed: int) -> Path:
    """The folder of a clean cohort, with iv/ and cxr/ in it."""
    folder = workspace.shared / f"cohort{seed}"
    if not folder.exists():
        random_cohort(seed, SUBJECTS).write(folder)
    return folder


def read_clean(cohort: Path, name: str) -> Table:
    """A table of a clean cohort."""
    with gzip.open(path_of(cohort, name), "rt", newline="") as file:
        header, *rows = csv.reader(file)
    return Table(name, tuple(header), tuple(map(tuple, rows)))


def path_of(cohort: Path, name: str) -> Path:
    """The file of a table of a cohort."""
    (path,) = find_files(cohort / ("cxr" if name in ("metadata", "chexpert") else "iv"), name)
    return path


def extract(cohort: Path, out: Path, protocol: str = "medmod") -> CommandResult:
    """Run the extraction for three tasks, which read all that the others do, in half the time."""
    folders = ("--mimic_iv", cohort / "iv", "--mimic_cxr", cohort / "cxr", "--out", out)
    return run(_extract, ExtractConfig, *folders, "--protocol", protocol)


def _extract(config: ExtractConfig) -> None:
    names = ("phenotyping", "decompensation", "radiology")
    extract_with_samples(config, {name: TASKS[name] for name in names})


def contents(store: Path) -> dict[str, str]:
    """A hash of each file of a store, without those that describe the input."""
    describe_input = ("manifest.yaml", "cxr_rejected.csv")
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.name not in describe_input)
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in files}


def put(cohort: Path, name: str, content: Content, suffix: str) -> Path:
    """Replace a table of a cohort and return its path."""
    old = path_of(cohort, name)
    old.unlink()
    new = old.with_name(old.name.removesuffix(".gz").removesuffix(".csv") + suffix)
    new.write_bytes(content)
    return new


def right_result(workspace: Workspace, cohort: Path, table: Table, protocol: str) -> dict[str, str]:
    """The store of a clean table."""
    content = table.content()
    key = (cohort.name, protocol, table.name, hashlib.sha256(content).hexdigest())
    if key not in _RIGHT:
        copy = workspace.folder / f"right{len(_RIGHT)}"
        shutil.copytree(cohort, copy)
        put(copy, table.name, content, ".csv")
        done = extract(copy, copy / "store", protocol)
        if done.status:
            raise Failure(f"the clean table is refused: {done.errors}")
        _RIGHT[key] = contents(copy / "store")
    return _RIGHT[key]


def _without(store: dict[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: digest for name, digest in store.items() if name not in names}


def attempt(make: Make, names: Sequence[str], draw: np.random.Generator, workspace: Workspace) -> str:
    """Extract a cohort with one faulty table."""
    cohort = clean_cohort(workspace, int(draw.integers(COHORTS)))
    protocol = pick(draw, ("medmod", "corrected"))
    table = read_clean(cohort, pick(draw, names))
    faulty = make(draw, table)
    suffix = {"csv": ".csv", "gz": ".csv.gz", "any": pick(draw, (".csv", ".csv.gz"))}[faulty.file]
    packed = faulty.content
    if suffix == ".csv.gz" and not faulty.packed:
        packed = gzip.compress(packed)
    copy = Path(shutil.copytree(cohort, workspace.folder / "raw"))
    path = put(copy, table.name, packed, suffix)
    done = extract(copy, workspace.folder / "store", protocol)
    right = (
        [right_result(workspace, cohort, like, protocol) for like in faulty.same_as]
        if not done.status
        else []
    )
    named = [path.name.split(".csv")[0], TABLES[table.name].pattern]
    return check_result(
        done,
        lambda: _without(contents(workspace.folder / "store"), faulty.lists),
        [_without(store, faulty.lists) for store in right],
        named,
        error=faulty.error,
        patient_value=PLANTED,
    )


# Files that are missing or misplaced.


def missing(path: Path) -> None:
    """No file at all."""
    path.unlink()


def a_folder(path: Path) -> None:
    """A folder of that name."""
    path.unlink()
    path.mkdir()


def twice(path: Path) -> None:
    """The file, and again without .gz."""
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def broken_link(path: Path) -> None:
    """A link that leads nowhere."""
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


PLACES = {
    "missing table": missing, "folder in place of a table": a_folder, "table there twice": twice,
    "broken link": broken_link,
}  # fmt: skip


def attempt_place(arrange: Callable[[Path], None], draw: np.random.Generator, workspace: Workspace) -> str:
    """Extract a cohort of which one table is missing or misplaced."""
    cohort, name = clean_cohort(workspace, 0), pick(draw, ALL)
    copy = Path(shutil.copytree(cohort, workspace.folder / "raw"))
    arrange(path_of(copy, name))
    done = extract(copy, workspace.folder / "store", "medmod")
    return check_result(done, lambda: contents(workspace.folder / "store"), [], [name])


def faults() -> list[Fault]:
    """All kinds of faulty tables."""
    faulty = [Fault("raw tables", name, partial(attempt, *fault)) for name, fault in FAULTS.items()]
    return faulty + [Fault("raw tables", name, partial(attempt_place, how)) for name, how in PLACES.items()]
