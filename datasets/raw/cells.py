"""Cells of raw tables: integers, numbers, times and missing values, as other tools export them too."""

from collections.abc import Callable, Mapping

import polars as pl

from datasets.raw.plain_times import parse_plain_times

# A missing value as SQL, pandas, R, Oracle, Stata and spreadsheets write it, in small letters.
MISSING = ("", "null", "(null)", "\\n", "nat", "nan", "na", "n/a", "#n/a", "<na>", "none", ".")
CHARTED_TEXT = "value"  # whose "None" is an answer: no eye opening
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
FIRST_YEAR = 1000
LARGEST_EXACT = 2.0**53  # float64 holds every integer up to here
UTC = ("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Zulu", "+00:00")

# Polars by itself reads the second 60 as the next minute, and "50-01-31" as a day of antiquity.
TIME = (
    r"^(?<day>[1-9]\d{3}-\d\d-\d\d)(?:[Tt ](?<clock>\d\d:\d\d)(?<second>:[0-5]\d)?(?<fraction>\.\d{1,9})?"
    r"(?: ?(?:[Zz]|UTC|[+-]00(?::?00)?))?)?$"
)
KINDS: Mapping[type[pl.DataType], str] = {
    pl.Int64: "a 64-bit integer",
    pl.Float64: "a number",
    pl.Datetime: "a time such as 2150-01-31 14:05:00 (no other offset than +00:00)",
    pl.String: "text",
}


class InvalidCell(ValueError):
    """A cell that is not what its column holds; `row` counts the rows of the file from 0."""

    def __init__(self, row: int, column: str, fault: str) -> None:
        super().__init__(row, column, fault)
        self.row, self.column, self.fault = row, column, fault


def is_missing(text: pl.Expr) -> pl.Expr:
    """Return whether text stands for a missing value."""
    return text.str.strip_chars().str.to_lowercase().is_in(MISSING)


def to_int(text: pl.Expr) -> pl.Expr:
    """Return text such as 123, 123.0 or 1.23e2 as Int64; null where it is no integer of 64 bits."""
    text = text.str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    is_exact = (number.round() == number) & (number.abs() <= LARGEST_EXACT)
    whole = pl.when(is_exact).then(number).cast(pl.Int64, strict=False)
    return pl.coalesce(text.cast(pl.Int64, strict=False), whole)


def to_time(text: pl.Expr) -> pl.Expr:
    """Return text such as 2150-01-31 14:05:00 or 2150-01-31T14:05:00.25Z as a time; null where it is none."""
    parts = text.str.strip_chars().str.extract_groups(TIME).struct
    day, clock, second, fraction = (parts.field(name) for name in ("day", "clock", "second", "fraction"))
    full = day + " " + clock.fill_null("00:00") + second.fill_null(":00") + fraction.fill_null("")
    return full.str.to_datetime(f"{TIME_FORMAT}%.f", time_unit="us", strict=False)


PARSERS: Mapping[type[pl.DataType], Callable[[pl.Expr], pl.Expr]] = {
    pl.Int64: to_int,
    pl.Float64: lambda text: text.str.strip_chars().cast(pl.Float64, strict=False),
    pl.Datetime: to_time,
    pl.String: lambda text: text,
}


def is_invalid(text: pl.Expr, dtype: type[pl.DataType]) -> pl.Expr:
    """Return whether text is neither a missing value nor one of a type; false where it is null."""
    return ~is_missing(text) & PARSERS[dtype](text).is_null()


def convert(
    frame: pl.DataFrame, types: Mapping[str, type[pl.DataType]], rows: pl.Series | None = None
) -> pl.DataFrame:
    """Return the columns in their types; text is parsed, and a text for a missing value becomes null.

    `rows` are the numbers of the rows in the file, for errors; by default they count from 0.

    Raises:
        InvalidCell: A cell is not of its column's type.
    """
    return frame.with_columns(_convert_column(frame[name], dtype, rows) for name, dtype in types.items())


def _convert_column(cells: pl.Series, dtype: type[pl.DataType], rows: pl.Series | None) -> pl.Series:
    name = cells.name
    if isinstance(cells.dtype, pl.Datetime | pl.Date):
        return _check_times(cells, rows)
    if cells.dtype == pl.Float64:
        return cells.fill_nan(None)
    if cells.dtype != pl.String or (name == CHARTED_TEXT and dtype is pl.String):
        return cells.cast(dtype)
    if dtype is pl.Datetime and (times := parse_plain_times(cells)) is not None:
        return times
    text = pl.col(name)
    is_usable = ~is_missing(text)
    values, invalid = (
        cells.to_frame().select(expression).to_series().alias(name)
        for expression in (pl.when(is_usable).then(PARSERS[dtype](text)), is_invalid(text, dtype))
    )
    if invalid.any():
        first = invalid.fill_null(False).arg_max() or 0
        fault = "holds a NUL byte or is not UTF-8" if "\0" in cells[first] else f"is not {KINDS[dtype]}"
        raise InvalidCell(_place(first, rows), name, fault)
    return values


def _place(index: int, rows: pl.Series | None) -> int:
    return index if rows is None else int(rows[index])


def _check_times(cells: pl.Series, rows: pl.Series | None) -> pl.Series:
    """Return times of a Parquet file, or dates, without a time zone."""
    zone = getattr(cells.dtype, "time_zone", None)
    if zone not in (None, *UTC):
        raise InvalidCell(0, cells.name, f"has the time zone {zone}, but MIMIC's times have none")
    if (ancient := cells.dt.year() < FIRST_YEAR).any():
        first = ancient.fill_null(False).arg_max() or 0
        raise InvalidCell(_place(first, rows), cells.name, f"is not {KINDS[pl.Datetime]}")
    return cells.cast(pl.Datetime("us", zone)).dt.replace_time_zone(None)
