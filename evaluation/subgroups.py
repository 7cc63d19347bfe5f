"""Subgroups of patients by age, sex and race, whose scores --subgroups compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from datasets.batches import Samples
from datasets.store import Store

UNKNOWN = "unknown"  # scored like any subgroup, but in no gap
AGES = ((0, 40, "under 40"), (40, 60, "40-59"), (60, 80, "60-79"), (80, np.inf, "80 and over"))
# First words of the release's codes of race and ethnicity, of which it has some thirty.
RACES = {
    "WHITE": "white",
    "BLACK": "black",
    "HISPANIC": "hispanic",
    "ASIAN": "asian",
    "UNKNOWN": UNKNOWN,
    "UNABLE": UNKNOWN,
    "PATIENT": UNKNOWN,
}


def age_group(age: pd.Series) -> pd.Series:
    """Ages in years -> their subgroup.

    >>> age_group(pd.Series([18, 60, 91])).tolist()
    ['under 40', '60-79', '80 and over']
    """
    groups = [(age >= low) & (age < high) for low, high, _ in AGES]
    return pd.Series(np.select(groups, [name for *_, name in AGES], UNKNOWN), age.index)


def sex_group(sex: pd.Series) -> pd.Series:
    """F and M as they are."""
    return sex.astype("object").fillna(UNKNOWN)


def race_group(race: pd.Series) -> pd.Series:
    """The release's codes -> white, black, hispanic, asian, other or unknown.

    >>> race_group(pd.Series(["BLACK/CAPE VERDEAN", "PORTUGUESE", "UNABLE TO OBTAIN", None])).tolist()
    ['black', 'other', 'unknown', 'unknown']
    """
    word = race.astype("object").fillna("UNKNOWN").str.upper().str.extract(r"^([A-Z]+)")[0]
    return word.map(RACES).fillna("other")


SUBGROUPS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "age": age_group,
    "sex": sex_group,
    "race": race_group,
}


def parse_subgroups(text: str) -> tuple[str, ...]:
    """What --subgroups names, apart by commas; ValueError for another word.

    >>> chosen("age, sex")
    ('age', 'sex')
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in names if name not in SUBGROUPS]
    if wrong:
        raise ValueError(f"--subgroups {text}: {', '.join(wrong)} must be among {', '.join(SUBGROUPS)}")
    return names


def sample_subgroups(store: Store, samples: Samples, names: Sequence[str]) -> pd.DataFrame:
    """Whom n samples are of: subject_id, and for each name of SUBGROUPS the subgroup; n rows."""
    stays = store.stays(["stay_id", "subject_id", *names]).set_index("stay_id")
    found = stays.loc[samples.stay_id].reset_index(drop=True)
    return found.assign(**{name: SUBGROUPS[name](found[name]) for name in names})
