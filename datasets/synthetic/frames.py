"""Columns that several tables of a synthetic release have."""

import polars as pl


def to_datetimes(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Convert columns of seconds since 1970 to datetimes.

    >>> to_datetimes(pl.DataFrame({"intime": [0]}), ("intime",))["intime"].to_list()
    [datetime.datetime(1970, 1, 1, 0, 0)]
    """
    seconds = pl.col(names).cast(pl.Int64)
    return frame.with_columns(pl.from_epoch(seconds, "s").cast(pl.Datetime("us")))


def with_row_number(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Add the number of each row as first column, as int64."""
    return frame.with_row_index(name).with_columns(pl.col(name).cast(pl.Int64))
