"""Decompensation: at every hour of a stay, does the patient die within the next 24 hours?"""

import numpy as np
import pandas as pd

from tasks.task import Task, whole_hours

HORIZON_HOURS = 24


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample for every whole hour from the fifth, until the end of the stay or death."""
    death = stays["death_hours"].fillna(np.inf).to_numpy()
    rows = whole_hours(stays, np.minimum(stays["los_hours"].to_numpy(), death))
    died = stays["mortality"].to_numpy()[rows["stay_row"]] == 1
    soon = death[rows["stay_row"]] - rows["end_hours"] < HORIZON_HOURS
    return rows.assign(y_true=(died & soon).astype(np.int8))


TASK = Task("decompensation", "binary", ("y_true",), "auroc", 2, samples)
