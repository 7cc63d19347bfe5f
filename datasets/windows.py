"""Where a sample of a task lies in the store: its hourly bins, its last row and its X-ray."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd

from datasets.hourly import bins_of, ends_mid_bin


class SampleMaker(Protocol):
    """What the extraction asks of a task (tasks.task.Task has it)."""

    name: str
    labels: tuple[str, ...]

    def samples(self, stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
        """Rows with stay_row, end_hours, period_length, the labels and perhaps cxr_row."""


@dataclass(frozen=True)
class StaysBlock:
    """Some consecutive stays with their images, numbered from 0; `first_stay` and `first_image` say where
    they lie.
    """

    stays: pd.DataFrame
    images: pd.DataFrame
    first_stay: int
    first_image: int

    @classmethod
    def of(cls, stays: pd.DataFrame, images: pd.DataFrame, start: int, stop: int) -> Self:
        """Stays start ... stop - 1; `images` is ordered by stay."""
        first, last = np.searchsorted(images["stay_row"].to_numpy(), [start, stop])
        own = images.iloc[first:last]
        own = own.assign(stay_row=own["stay_row"].astype(np.int64) - start).reset_index(drop=True)
        return cls(stays.iloc[start:stop].reset_index(drop=True), own, start, int(first))

    def samples(
        self, tasks: Mapping[str, SampleMaker], protocol: str, timestep: float
    ) -> dict[str, pd.DataFrame]:
        """Each task's samples of these stays, placed in the store."""
        found = {}
        for name, task in tasks.items():
            made = task.samples(self.stays, self.images, protocol)
            placed = place_samples(made, self.stays, self.images, timestep)
            rows = placed["cxr_row"].to_numpy()
            found[name] = placed.assign(
                stay_row=placed["stay_row"] + self.first_stay,
                cxr_row=np.where(rows >= 0, rows + self.first_image, -1),
            )
        return found


def last_image(samples: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Row of the last image of each sample's stay at or before its end_hours; -1 where there is none.

    `images` is ordered by (stay_row, hours); `samples` has stay_row and end_hours.
    """
    if images.empty:
        return np.full(len(samples), -1, np.int64)
    key = _moment(images["stay_row"], images["hours"])
    asked = _moment(samples["stay_row"], samples["end_hours"])
    found = np.searchsorted(key, asked, side="right") - 1
    same = images["stay_row"].to_numpy()[np.maximum(found, 0)] == samples["stay_row"].to_numpy()
    return np.where((found >= 0) & same, found, -1)


def _moment(stay_row: pd.Series, hours: pd.Series) -> np.ndarray:
    """Milliseconds on a common clock that keeps stays apart."""
    milliseconds = np.round(hours.to_numpy(np.float64) * 3.6e6).astype(np.int64)
    return stay_row.to_numpy(np.int64) << 40 | milliseconds


def place_samples(
    samples: pd.DataFrame, stays: pd.DataFrame, images: pd.DataFrame, timestep: float
) -> pd.DataFrame:
    """Add `bins`, `cuts` (does the window end inside a bin, before the stay's end?) and, where absent,
    `cxr_row`.

    Samples without a bin (a window of no length) are dropped.
    """
    bins = bins_of(samples["end_hours"].to_numpy(), timestep)
    los = stays["los_hours"].to_numpy()[samples["stay_row"]]
    early = samples["end_hours"].to_numpy() < los - 1e-6
    placed = samples.assign(bins=bins, cuts=early & ends_mid_bin(samples["end_hours"].to_numpy(), timestep))
    if "cxr_row" not in placed:
        placed["cxr_row"] = last_image(placed, images)
    return placed[placed["bins"] > 0].reset_index(drop=True)


def unique_partial_bins(tasks: list[pd.DataFrame]) -> pd.DataFrame:
    """All (stay_row, end_hours) of windows that end inside a bin, once each, ordered by stay and time."""
    cuts = [task.loc[task["cuts"], ["stay_row", "end_hours"]] for task in tasks]
    return pd.concat(cuts).drop_duplicates().sort_values(["stay_row", "end_hours"]).reset_index(drop=True)


def tail_row_of(samples: pd.DataFrame, cuts: pd.DataFrame, first_row: int) -> np.ndarray:
    """Row in hourly.npy that ends each sample's window; -1 where the grid's own row does."""
    rows = cuts.assign(tail_row=np.arange(len(cuts)) + first_row)
    found = samples[["stay_row", "end_hours"]].merge(rows, on=["stay_row", "end_hours"], how="left")[
        "tail_row"
    ]
    return np.where(samples["cuts"], found.fillna(-1), -1).astype(np.int64)
