"""Readmission: does another ICU stay of the patient begin within 30 days of leaving this one?"""

import pandas as pd

from tasks.task import Task


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample for each stay with an event; under `corrected` only if the patient leaves alive."""
    usable = stays[stays["first_event_hours"].notna() & ((protocol == "medmod") | (stays["mortality"] == 0))]
    window = {"stay_row": usable.index, "end_hours": usable["los_hours"], "period_length": 0}
    return pd.DataFrame(window | {"y_true": usable["readmission"]}).reset_index(drop=True)


TASK = Task("readmission", "binary", ("y_true",), "auroc", 2, samples)
