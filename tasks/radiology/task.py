"""Radiology: which of CheXpert's 14 findings does an X-ray show, given it and the record up to it?"""

import pandas as pd

from datasets.schema import FINDINGS
from tasks.task import Task


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample for each study: its first image, read with the record up to the time of that image."""
    usable = stays["first_event_hours"].notna().to_numpy()[images["stay_row"]]
    first = images[usable].drop_duplicates(["stay_row", "study_id"], keep="first")
    window = {"stay_row": first["stay_row"], "end_hours": first["hours"], "period_length": first["hours"]}
    return pd.DataFrame(window).assign(cxr_row=first.index).join(first[list(FINDINGS)]).reset_index(drop=True)


TASK = Task("radiology", "multilabel", FINDINGS, "auroc", 2, samples)
