"""Decompensation: at every hour of a stay, does the patient die within the next 24 hours?"""

import numpy as np
import pandas as pd

from tasks.task import Task, whole_hours

HORIZON_HOURS = 24


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample every whole hour from the fifth, to the end of the stay or to death.

    Under `corrected` a death of unknown hour ends them 24 hours before its earliest moment, because later
    samples have no certain label.
    """
    death = stays["death_hours"].fillna(np.inf).to_numpy()
    if protocol == "corrected":
        is_dated = stays["death_hour_known"].to_numpy(bool)
        last_hour = np.where(is_dated, death, death - HORIZON_HOURS)
    else:
        is_dated = stays["mortality"].to_numpy() == 1
        last_hour = death
    rows = whole_hours(stays, np.minimum(stays["los_hours"].to_numpy(), last_hour))
    soon = death[rows["stay_row"]] - rows["end_hours"] < HORIZON_HOURS
    return rows.assign(y_true=(is_dated[rows["stay_row"]] & soon).astype(np.int8))


TASK = Task("decompensation", "binary", ("y_true",), "auroc", 2, samples)
