"""Groups of patients, such as by age and sex, which are scored one by one; `+` intersects them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from datasets.samples import Samples
from datasets.store import Store
from evaluation.predictions import HAS_XRAY
from utils.lazy_pandas import pd

UNKNOWN = "unknown"  # scored like any subgroup, but excluded from gaps
SMALLEST_GROUP = 20  # subjects; scores of fewer say little, and might tell who they are
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


ADMISSIONS = {  # by the first word of MIMIC-IV's types of admission, of which there are nine
    "EW": "emergency",
    "DIRECT": "emergency",
    "EMERGENCY": "emergency",
    "URGENT": "urgent",
    "ELECTIVE": "elective",
    "SURGICAL": "elective",
}


def admission_group(kind: pd.Series) -> pd.Series:
    """Map MIMIC-IV's types of admission to emergency, urgent, elective, observation or unknown.

    >>> kinds = ["EW EMER.", "DIRECT OBSERVATION", "EU OBSERVATION", "SURGICAL SAME DAY ADMISSION", None]
    >>> admission_group(pd.Series(kinds)).tolist()
    ['emergency', 'observation', 'observation', 'elective', 'unknown']
    """
    kind = kind.astype("object").fillna("").str.upper()
    groups = kind.str.extract(r"^([A-Z]+)")[0].map(ADMISSIONS).fillna(UNKNOWN)
    return groups.mask(kind.str.contains("OBSERVATION"), "observation")


def as_recorded(values: pd.Series) -> pd.Series:
    """Return texts as they are, with `unknown` for those that are missing.

    >>> as_recorded(pd.Series(["F", None])).tolist()
    ['F', 'unknown']
    """
    return values.astype("object").fillna(UNKNOWN)


def xray_group(has_xray: pd.Series) -> pd.Series:
    """Return `yes` or `no`."""
    return pd.Series(np.where(has_xray, "yes", "no"), has_xray.index)


class Variable(NamedTuple):
    """A column of the stays, or HAS_XRAY of the sample, and how its values are grouped."""

    column: str
    group: Callable[[pd.Series], pd.Series]


SUBGROUPS = {
    "age": Variable("age", age_group),
    "sex": Variable("sex", as_recorded),
    "race": Variable("race", race_group),
    "admission": Variable("admission_type", admission_group),
    "unit": Variable("last_careunit", as_recorded),
    "years": Variable("anchor_year_group", as_recorded),
    HAS_XRAY: Variable(HAS_XRAY, xray_group),
}


def parse_subgroups(text: str) -> tuple[str, ...]:
    """Return the variables in --subgroups, which commas separate; `sex+race` is an intersection.

    Raises:
        ValueError: a name is not in SUBGROUPS, or twice in an intersection.

    >>> parse_subgroups("age, sex+race")
    ('age', 'sex+race')
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        parts = name.split("+")
        if unknown := [part for part in parts if part not in SUBGROUPS]:
            choices = ", ".join(SUBGROUPS)
            raise ValueError(f"--subgroups {text}: {', '.join(unknown)} must be one of {choices}")
        if len(set(parts)) < len(parts):
            raise ValueError(f"--subgroups {text}: {name} has a variable twice; name each once")
    return names


def sample_subgroups(store: Store, samples: Samples, names: Sequence[str]) -> pd.DataFrame:
    """Return a row per sample with its subgroup of each of `names`, as parse_subgroups returns them."""
    return subgroups_of(store, samples.stay_id, samples.cxr_row >= 0, names)


def subgroups_of(
    store: Store, stay_id: np.ndarray, has_xray: np.ndarray, names: Sequence[str]
) -> pd.DataFrame:
    """Return a row for each of n samples with its subgroup of each of `names`, such as `F + white`.

    Raises:
        ValueError: the store does not have a column that is needed.
    """
    if not names:
        return pd.DataFrame(index=range(len(stay_id)))
    variables = list(dict.fromkeys(part for name in names for part in name.split("+")))
    stays = store.stays().set_index("stay_id").assign(**{HAS_XRAY: False})
    if missing := missing_variables(store, names):
        raise ValueError(
            f"{store.folder} does not have what the subgroups {', '.join(missing)} need: a former version or "
            "a dataset without it made the store; extract again, or leave them out"
        )
    values = stays[[SUBGROUPS[name].column for name in variables]].loc[stay_id].reset_index(drop=True)
    values = values.assign(**{HAS_XRAY: has_xray})
    of = {name: SUBGROUPS[name].group(values[SUBGROUPS[name].column]) for name in variables}
    groups = {name: _intersection([of[part] for part in name.split("+")]) for name in names}
    return pd.DataFrame(groups, values.index)


def missing_variables(store: Store, names: Sequence[str]) -> list[str]:
    """Return the variables in `names` whose column the stays of a store do not have."""
    columns = {*store.stays(), HAS_XRAY}
    variables = dict.fromkeys(part for name in names for part in name.split("+"))
    return [name for name in variables if SUBGROUPS[name].column not in columns]


def _intersection(groups: Sequence[pd.Series]) -> pd.Series:
    """Return `F + white` and the like, and `unknown` where one of the groups is."""
    text, is_unknown = groups[0], groups[0] == UNKNOWN
    for group in groups[1:]:
        text, is_unknown = text + " + " + group, is_unknown | (group == UNKNOWN)
    return text.mask(is_unknown, UNKNOWN)
