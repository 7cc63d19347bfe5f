"""A prediction task: its labels, its samples and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from utils.lazy_pandas import pd

SHORTEST_HOURS = 4  # a prediction at every hour needs more than this much of the stay
TaskKind = Literal["binary", "multilabel", "ordinal"]


# What a stay needs to be a sample, in words, and whether each of some stays has it; in the order in which
# stays are counted.
Rules = Mapping[str, "pd.Series[bool]"]


def no_rules(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> Rules:
    """Return no rule, for a task that does not say what its stays need."""
    return {}


def check_binary(labels: np.ndarray) -> np.ndarray:
    """Return labels as they are; refuse any but 0, 1 and NaN."""
    if not (np.isnan(labels) | (labels == 0) | (labels == 1)).all():
        raise ValueError("labels must be 0, 1 or NaN")
    return labels


@dataclass(frozen=True)
class Task:
    """A prediction task of the benchmark; `monitor` is the score that chooses the best epoch.

    `samples` turns (stays, images, protocol) into a table with a row per sample: `stay_row`, `end_hours`
    (prediction time, hours since ICU admission), `period_length` (as in the published listfiles), the labels,
    `cxr_row` if the task itself names the image, and `read_hours` if the record is read up to an earlier time
    than `end_hours`. `encode` turns the listfile's labels [n, L] into targets
    [n, L]: class probabilities, or the index of the class for an ordinal task; NaN (unknown) stays NaN.
    `groups` are labels that are also scored together. `rules` takes what `samples` takes and says which stays
    can have a sample, and why others have none; the extraction counts them. `class_titles` says for
    readers what each class means: of an ordinal task the bins, of others a label of 0 and of 1.
    """

    name: str
    kind: TaskKind
    labels: tuple[str, ...]
    monitor: Literal["auroc", "kappa"]
    classes: int
    samples: Callable[[pd.DataFrame, pd.DataFrame, str], pd.DataFrame]
    encode: Callable[[np.ndarray], np.ndarray] = check_binary
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rules: Callable[[pd.DataFrame, pd.DataFrame, str], Rules] = no_rules
    class_titles: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of logits of a classifier: one per label, or one per class of an ordinal task."""
        return self.classes if self.kind == "ordinal" else len(self.labels)

    @property
    def folder(self) -> str:
        """Name of the task's folder: `in-hospital-mortality` -> `in_hospital_mortality`."""
        return self.name.replace("-", "_")


def _first_and_count(stays: pd.DataFrame, last_hour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of each stay's `whole_hours` and how many there are, [stays] each."""
    event = stays["first_event_hours"].to_numpy(np.float64)
    first = np.floor(np.maximum(SHORTEST_HOURS, np.nan_to_num(event))) + 1
    last = np.floor(last_hour + 1e-6)
    count = np.where(np.isnan(event), 0, np.maximum(last - first + 1, 0))
    return first, count.astype(np.int64)


def whole_hours(stays: pd.DataFrame, last_hour: np.ndarray) -> pd.DataFrame:
    """Return stay_row, end_hours and period_length at whole hours t: max(4, first event) < t <= last_hour."""
    first, count = _first_and_count(stays, last_hour)
    stay_row = np.repeat(np.arange(len(stays)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    end_hours = first[stay_row] + within
    return pd.DataFrame({"stay_row": stay_row, "end_hours": end_hours, "period_length": end_hours})


def whole_hours_rules(stays: pd.DataFrame, last_hour: np.ndarray) -> Rules:
    """Return what a stay needs to have a sample at `whole_hours`."""
    _, count = _first_and_count(stays, last_hour)
    return {
        "an event": stays["first_event_hours"].notna(),
        "a whole hour after an event, from the fifth to the last": pd.Series(count > 0, stays.index),
    }


def passes(rules: Rules) -> pd.Series[bool]:
    """Return whether each stay passes all rules."""
    return pd.DataFrame(rules).all(axis=1)


def hours_alive(stays: pd.DataFrame, protocol: str) -> pd.Series:
    """Return the hours of each stay in which samples may end: LOS, under `corrected` at most until death."""
    if protocol == "medmod":
        return stays["los_hours"]
    return stays["los_hours"].clip(upper=stays["death_hours"].fillna(np.inf))


def has_event(stays: pd.DataFrame, hours: pd.Series | float) -> pd.Series:
    """Return whether the first event of each stay lies within its first `hours`."""
    return stays["first_event_hours"] <= hours + 1e-6
