"""Radiology: which of CheXpert's 14 findings does an X-ray show, given it and the record up to it?"""

from __future__ import annotations

import numpy as np

from datasets.schema import FINDINGS
from tasks.task import Rules, Task, has_event, hours_alive, passes
from utils.lazy_pandas import pd


def rules(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> Rules:
    """Return what a stay needs: an event and an X-ray, under `corrected` before death."""
    with_image = stays.index.isin(images["stay_row"][_is_before_death(stays, images, protocol)])
    return {
        "an event": has_event(stays, hours_alive(stays, protocol)),
        "an X-ray": pd.Series(with_image, stays.index),
    }


def _is_before_death(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> np.ndarray:
    """Return whether each image was taken before death; under `medmod` always."""
    if protocol == "medmod":
        return np.ones(len(images), bool)
    death = stays["death_hours"].fillna(np.inf).to_numpy()
    return np.asarray(images["hours"].to_numpy() <= death[images["stay_row"]])


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample per study: its first image, with the record up to it, under `corrected` until death."""
    usable = passes(rules(stays, images, protocol)).to_numpy()[images["stay_row"]]
    usable &= _is_before_death(stays, images, protocol)
    first = images[usable].drop_duplicates(["stay_row", "study_id"], keep="first")
    window = {"stay_row": first["stay_row"], "end_hours": first["hours"], "period_length": first["hours"]}
    return pd.DataFrame(window).assign(cxr_row=first.index).join(first[list(FINDINGS)]).reset_index(drop=True)


TITLES = ("not found in the X-ray", "found in the X-ray")
TASK = Task("radiology", "multilabel", FINDINGS, "auroc", 2, samples, rules=rules, class_titles=TITLES)
