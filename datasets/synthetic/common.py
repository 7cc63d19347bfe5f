"""Random streams and ids that all parts of a synthetic release share."""

import numpy as np

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
