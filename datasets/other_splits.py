"""Other splits of a finished store than those of its extraction: folds of subjects, and years."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.data_config import DataConfig, parse_fold
from datasets.schema import SPLITS
from datasets.splits import split_by_fold, split_by_year
from datasets.store import OtherSplits, Store
from utils.lazy_pandas import pd

YEARS = "anchor_year_group"


def open_store(config: DataConfig) -> Store:
    """Open the store of some settings, with the splits that they ask for.

    Raises:
        ValueError: The store cannot be split so: it knows no years, or a split has no stay.
    """
    store = Store.open(config.store)
    if config.fold:
        fold, folds = parse_fold(config.fold)
        subjects = store.stay_columns(["subject_id"])["subject_id"]
        return _with_splits(store, f"fold {fold}/{folds}", split_by_fold(subjects, fold, folds))
    if config.split_by == "year":
        years = group_years(store)
        first = config.first_test_year or last_year(store, years)
        subjects = store.stay_columns(["subject_id"])["subject_id"]
        return _with_splits(store, f"year from {first}", split_by_year(subjects, years, first), years)
    return store


def group_years(store: Store) -> np.ndarray:
    """Return the year in which the anchor_year_group of each stay's patient begins, int64 [stays].

    Raises:
        ValueError: The store does not know the years.
    """
    columns = store.stays().columns
    if YEARS not in columns:
        raise ValueError(
            f"--split_by year: {store.folder} has no {YEARS}: a former version made it; extract again, into "
            "another folder"
        )
    groups = store.stays([YEARS])[YEARS]
    if groups.isna().all():
        raise ValueError(
            f"--split_by year: {store.folder} knows no {YEARS}: its source, such as a MEDS dataset, has "
            "shifted dates and no years; use --fold, or extract from a release of MIMIC-IV"
        )
    years = pd.to_numeric(groups.str.extract(r"^(\d{4})")[0], errors="coerce")
    if years.isna().any():
        raise ValueError(
            f"--split_by year: {int(years.isna().sum())} of {len(years)} stays of {store.folder} have no "
            f"{YEARS} such as 2014 - 2016; use --fold"
        )
    first: np.ndarray = years.to_numpy(np.int64)
    return first


def last_year(store: Store, years: np.ndarray) -> int:
    """Return the first year of the last group that has an X-ray; of all groups, if none has.

    MIMIC-CXR ends before MIMIC-IV, so that the last groups of patients have no X-rays to test on.
    """
    with_xray = years[store.images(["stay_row"])["stay_row"].unique()]
    return int((with_xray if len(with_xray) else years).max())


def _with_splits(store: Store, name: str, splits: list[str], years: np.ndarray | None = None) -> Store:
    """Return the store with other splits; ValueError if one of them has no stay."""
    of_stays = np.array(splits, dtype=object)
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        known = "" if years is None else f"; its groups begin in {', '.join(map(str, np.unique(years)))}"
        raise ValueError(
            f"{store.folder}: {name} leaves no stay in the {' and the '.join(missing)} split{known}; choose "
            "other splits, or a store with more stays"
        )
    return replace(store, other_splits=OtherSplits(name, of_stays))
