"""Subgroups of patients by age, sex and race, which --subgroups scores one by one."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from datasets.samples import Samples
from datasets.store import Store

UNKNOWN = "unknown"  # scored like any subgroup, but excluded from gaps
AGES = ((0, 40, "under 40"), (40, 60, "40-59"), (60, 80, "60-79"), (80, np.inf, "80 and over"))
RACES = {  # by the first word of MIMIC-IV's race codes, of which there are about thirty
    "WHITE": "white",
    "BLACK": "black",
    "HISPANIC": "hispanic",
    "ASIAN": "asian",
    "UNKNOWN": UNKNOWN,
    "UNABLE": UNKNOWN,
    "PATIENT": UNKNOWN,
}


def age_group(age: pd.Series) -> pd.Series:
    """Return the subgroup of ages in years.

    >>> age_group(pd.Series([18, 60, 91])).tolist()
    ['under 40', '60-79', '80 and over']
    """
    groups = [(age >= low) & (age < high) for low, high, _ in AGES]
    return pd.Series(np.select(groups, [name for *_, name in AGES], UNKNOWN), age.index)


def race_group(race: pd.Series) -> pd.Series:
    """Map MIMIC-IV's codes to white, black, hispanic, asian, other or unknown.

    >>> race_group(pd.Series(["BLACK/CAPE VERDEAN", "PORTUGUESE", "UNABLE TO OBTAIN", None])).tolist()
    ['black', 'other', 'unknown', 'unknown']
    """
    word = race.astype("object").fillna("UNKNOWN").str.upper().str.extract(r"^([A-Z]+)")[0]
    return word.map(RACES).fillna("other")


SUBGROUPS: dict[str, Callable[[pd.Series], pd.Series]]  # column of the stays -> its subgroups
SUBGROUPS = {"age": age_group, "sex": lambda sex: sex.astype("object").fillna(UNKNOWN), "race": race_group}


def parse_subgroups(text: str) -> tuple[str, ...]:
    """Return the names in --subgroups, which commas separate.

    Raises:
        ValueError: a name is not in SUBGROUPS.

    >>> parse_subgroups("age, sex")
    ('age', 'sex')
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in SUBGROUPS]
    if unknown:
        raise ValueError(f"--subgroups {text}: {', '.join(unknown)} must be one of {', '.join(SUBGROUPS)}")
    return names


def sample_subgroups(store: Store, samples: Samples, names: Sequence[str]) -> pd.DataFrame:
    """Return a row per sample with its subgroup of each of `names`, keys of SUBGROUPS."""
    stays = store.stays(["stay_id", *names]).set_index("stay_id")
    values = stays.loc[samples.stay_id].reset_index(drop=True)
    return values.assign(**{name: SUBGROUPS[name](values[name]) for name in names})
