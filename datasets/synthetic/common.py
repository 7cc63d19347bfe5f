"""Random streams, ids and times that all parts of a synthetic release share."""

import numpy as np
import polars as pl

HOUR, DAY = 3600, 86400  # seconds
# Purposes of random streams: each has a stream of its own, so that a change in one never changes another.
HISTORY, CODES, CHART, LABS, STUDIES = range(5)


def random_stream(seed: int, *purpose: int) -> np.random.Generator:
    """Return a random generator that depends on the seed and the purpose (such as block and table) alone."""
    return np.random.default_rng([seed, *purpose])


def scatter_ids(start: int, numbers: np.ndarray) -> np.ndarray:
    """Return ids in [start, start + 10 million), scattered and unique for numbers below 10 million.

    >>> scatter_ids(10_000_000, np.array([0, 1]))
    array([10000032, 17654353])
    """
    return np.asarray(start + (32 + numbers.astype(np.int64) * 7_654_321) % 10_000_000)


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
