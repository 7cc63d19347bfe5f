"""Times in MIMIC's own spelling are parsed as Polars parses them, and all others are left to it."""

import numpy as np
import polars as pl
import pytest

from datasets.raw.plain_times import parse_plain_times, plain_seconds

FORMAT = "%Y-%m-%d %H:%M:%S"
FIRST, LAST = -30_610_224_000, 253_402_300_799  # seconds of 1000-01-01 00:00:00 and 9999-12-31 23:59:59


def written(count: int) -> pl.Series:
    """Random times of all years as text."""
    seconds = np.random.default_rng(0).integers(FIRST, LAST, count, endpoint=True)
    seconds[:2] = FIRST, LAST
    return pl.Series("charttime", seconds * 1_000_000).cast(pl.Datetime("us")).dt.strftime(FORMAT)


def test_times_are_those_that_polars_reads() -> None:
    text = written(20_000)
    times = parse_plain_times(text)
    assert times is not None and times.equals(text.str.to_datetime(FORMAT, time_unit="us"), check_names=True)


def test_missing_times_and_parts_of_a_column_are_read_too() -> None:
    text = written(1000).set(pl.Series(np.arange(1000) % 3 == 0), None)
    for part in (text, text[17:100], text[:1]):
        times = parse_plain_times(part)
        assert times is not None and times.equals(part.str.to_datetime(FORMAT, time_unit="us"))


def test_seconds_count_from_1970_and_mark_missing_times() -> None:
    seconds = plain_seconds(pl.Series(["1970-01-02 00:00:01", None, "1969-12-31 23:59:59"]), missing=-9)
    assert seconds is not None and seconds.tolist() == [86_401, -9, -1]
    assert plain_seconds(pl.Series(["1970-01-02", None]), missing=-9) is None


@pytest.mark.parametrize(
    "time",
    [
        "2150-02-29 00:00:00", "2150-13-01 00:00:00", "2150-00-01 00:00:00", "2150-01-00 00:00:00",
        "2150-01-01 24:00:00", "2150-01-01 23:60:00", "2150-01-01 23:00:60", "0999-01-01 00:00:00",
        "2150-01-01T00:00:00", "2150-01-01 00:00", "2150-01-01", "215:-01-01 00:00:00",
        "\u0662150-01-01 00:00:00", "\u0662150-01-01 00:00:0", " 2150-01-01 00:00:0", "",
    ],
)  # fmt: skip
def test_a_column_with_any_other_text_is_left(time: str) -> None:
    assert parse_plain_times(pl.Series(["2150-01-01 00:00:00", time])) is None


def test_a_leap_day_is_a_day() -> None:
    times = parse_plain_times(pl.Series(["2148-02-29 23:59:59"]))
    assert times is not None and str(times[0]) == "2148-02-29 23:59:59"
