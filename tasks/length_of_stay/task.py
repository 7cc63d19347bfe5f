"""Length of stay: at every hour of a stay, in which of ten bins does the remaining time lie?"""

from __future__ import annotations

import itertools

import numpy as np

from tasks.task import Rules, Task, hours_alive, whole_hours, whole_hours_rules
from utils.lazy_pandas import pd

# Left edges of the bins in hours after the first: 1, 2, ..., 8 and 14 days.
DAYS = (1, 2, 3, 4, 5, 6, 7, 8, 14)
EDGES = np.array([24.0 * day for day in DAYS])
TITLES = ("under 1 day", *(f"{a} to {b} days" for a, b in itertools.pairwise(DAYS)), "14 days or more")


def rules(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> Rules:
    """Return what a stay needs to have a sample."""
    return whole_hours_rules(stays, hours_alive(stays, protocol).to_numpy())


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample every whole hour from the fifth to the end of the stay, under `corrected` to death.

    The label is the remaining hours of the stay.
    """
    hours = whole_hours(stays, hours_alive(stays, protocol).to_numpy())
    return hours.assign(y_true=stays["los_hours"].to_numpy()[hours["stay_row"]] - hours["end_hours"])


def bin_of_remaining(hours: np.ndarray) -> np.ndarray:
    """Return the bin of remaining hours: <1 day, 1-2, ..., 7-8, 8-14, 14 days and more; NaN stays NaN.

    >>> bin_of_remaining(np.array([23.9, 24.0, 200.0, 336.0])).tolist()
    [0.0, 1.0, 8.0, 9.0]
    """
    return np.where(np.isnan(hours), np.nan, np.digitize(hours, EDGES))


TASK = Task(
    "length-of-stay",
    "ordinal",
    ("y_true",),
    "kappa",
    len(EDGES) + 1,
    samples,
    bin_of_remaining,
    rules=rules,
    class_titles=TITLES,
)
