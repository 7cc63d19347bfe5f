"""Samples of the tasks that predict at every hour of a stay."""

import numpy as np
import pandas as pd

SHORTEST_HOURS = 4  # a prediction needs more than this much of the stay


def whole_hours(stays: pd.DataFrame, last_hour: np.ndarray) -> pd.DataFrame:
    """Return a row for each whole hour t of each stay with t > 4, t > first event and t <= last_hour.

    Args:
        stays: Stays, numbered from 0.
        last_hour: Of each stay.

    Returns:
        Columns stay_row, end_hours and period_length.
    """
    usable = stays["first_event_hours"].notna().to_numpy()
    first = np.floor(np.maximum(SHORTEST_HOURS, stays["first_event_hours"].fillna(0).to_numpy())) + 1
    last = np.floor(last_hour + 1e-6)
    count = np.where(usable, np.maximum(last - first + 1, 0), 0).astype(np.int64)
    stay_row = np.repeat(np.arange(len(stays)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    end_hours = first[stay_row] + within
    return pd.DataFrame({"stay_row": stay_row, "end_hours": end_hours, "period_length": end_hours})
