"""Radiology: which of CheXpert's 14 findings does an X-ray show, given it and the record up to it?"""

import numpy as np
import pandas as pd

from datasets.schema import FINDINGS
from tasks.task import Task, has_event, hours_alive


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample per study: its first image, with the record up to it, under `corrected` until death."""
    usable = has_event(stays, hours_alive(stays, protocol)).to_numpy()[images["stay_row"]]
    if protocol == "corrected":
        death = stays["death_hours"].fillna(np.inf).to_numpy()
        usable &= images["hours"].to_numpy() <= death[images["stay_row"]]
    first = images[usable].drop_duplicates(["stay_row", "study_id"], keep="first")
    window = {"stay_row": first["stay_row"], "end_hours": first["hours"], "period_length": first["hours"]}
    return pd.DataFrame(window).assign(cxr_row=first.index).join(first[list(FINDINGS)]).reset_index(drop=True)


TASK = Task("radiology", "multilabel", FINDINGS, "auroc", 2, samples)
