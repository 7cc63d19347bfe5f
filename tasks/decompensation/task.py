"""Decompensation: at every hour of a stay, does the patient die within the next 24 hours?"""

from __future__ import annotations

import numpy as np

from tasks.task import Rules, Task, whole_hours, whole_hours_rules
from utils.lazy_pandas import pd

HORIZON_HOURS = 24


def last_hours(stays: pd.DataFrame, protocol: str) -> np.ndarray:
    """Return the last hour of a sample of each stay: its end or death.

    Under `corrected` a death of unknown hour ends them 24 hours before its earliest moment, because later
    samples have no certain label.
    """
    death = _death_hours(stays)
    if protocol == "corrected":
        death = np.where(stays["death_hour_known"].to_numpy(bool), death, death - HORIZON_HOURS)
    return np.asarray(np.minimum(stays["los_hours"].to_numpy(), death))


def _death_hours(stays: pd.DataFrame) -> np.ndarray:
    hours: np.ndarray = stays["death_hours"].fillna(np.inf).to_numpy()
    return hours


def rules(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> Rules:
    """Return what a stay needs to have a sample."""
    return whole_hours_rules(stays, last_hours(stays, protocol))


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample every whole hour from the fifth, to `last_hours`."""
    rows = whole_hours(stays, last_hours(stays, protocol))
    if protocol == "corrected":
        is_dated = stays["death_hour_known"].to_numpy(bool)
    else:
        is_dated = stays["mortality"].to_numpy() == 1
    soon = _death_hours(stays)[rows["stay_row"]] - rows["end_hours"] < HORIZON_HOURS
    return rows.assign(y_true=(is_dated[rows["stay_row"]] & soon).astype(np.int8))


TITLES = ("survives the next 24 hours", "dies within 24 hours")
TASK = Task("decompensation", "binary", ("y_true",), "auroc", 2, samples, rules=rules, class_titles=TITLES)
