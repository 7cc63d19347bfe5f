"""Readmission: does another ICU stay of the patient begin within 30 days of leaving this one?"""

import pandas as pd

from tasks.task import Task, has_event, hours_alive


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample per stay with an event; under `corrected` none of a patient who died in hospital."""
    hours = hours_alive(stays, protocol)
    usable = has_event(stays, hours)
    if protocol == "corrected":
        usable &= (stays["mortality"] == 0) & stays["readmission"].notna()
    stays = stays[usable]
    window = {"stay_row": stays.index, "end_hours": hours[usable], "period_length": 0}
    return pd.DataFrame(window).assign(y_true=stays["readmission"].astype("int8")).reset_index(drop=True)


TASK = Task("readmission", "binary", ("y_true",), "auroc", 2, samples)
