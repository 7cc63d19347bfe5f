"""Readmission: does another ICU stay of the patient begin within 30 days of leaving this one?"""

from __future__ import annotations

from tasks.task import Rules, Task, has_event, hours_alive, passes
from utils.lazy_pandas import pd

PUBLISHED_HOURS = 48.0  # that the published classes read, where period_length is 0


def rules(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> Rules:
    """Return what a stay needs: an event, and under `corrected` a patient who leaves the hospital alive."""
    needed = {"an event": has_event(stays, hours_alive(stays, protocol))}
    if protocol == "corrected":
        needed["a discharge alive"] = (stays["mortality"] == 0) & stays["readmission"].notna()
    return needed


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample per stay with an event: its first 48 hours under `medmod`, else all of it.

    Under `corrected` a patient who died in hospital is no sample.
    """
    usable = passes(rules(stays, images, protocol))
    hours, stays = hours_alive(stays, protocol)[usable], stays[usable]
    read = hours.clip(upper=PUBLISHED_HOURS) if protocol == "medmod" else hours
    window = {"stay_row": stays.index, "end_hours": hours, "read_hours": read, "period_length": 0}
    return pd.DataFrame(window).assign(y_true=stays["readmission"].astype("int8")).reset_index(drop=True)


TITLES = ("no ICU stay within 30 days", "another ICU stay within 30 days")
TASK = Task("readmission", "binary", ("y_true",), "auroc", 2, samples, rules=rules, class_titles=TITLES)
