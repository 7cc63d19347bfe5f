"""In-hospital mortality: from the first 48 hours of a stay, does the patient die in hospital?"""

import pandas as pd

from tasks.task import Task

WINDOW_HOURS = 48.0


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample for each stay of 48 hours or more that has an event in them."""
    long_enough = stays["los_hours"] >= WINDOW_HOURS - 1e-6
    usable = stays[long_enough & (stays["first_event_hours"] <= WINDOW_HOURS + 1e-6)]
    window = {"stay_row": usable.index, "end_hours": WINDOW_HOURS, "period_length": 0}
    return pd.DataFrame(window | {"y_true": usable["mortality"]}).reset_index(drop=True)


TASK = Task("in-hospital-mortality", "binary", ("y_true",), "auroc", 2, samples)
