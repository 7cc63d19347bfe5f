"""Hourly tables from charted events: the 76-channel grid, the rows that end inside a bin, and the
normaliser.
"""

import json
from dataclasses import dataclass

import numpy as np

from datasets.schema import CHANNELS, continuous_channels, variables

EDGE = 1e-6  # an event at the very end of a bin belongs to it


def bins_of(hours: np.ndarray | float, timestep: float = 1.0) -> np.ndarray:
    """Number of bins of `timestep` hours in a window of `hours`.

    >>> bins_of(48.0).item(), bins_of(48.1).item(), bins_of(48.0, 0.8).item()
    (48, 49, 60)
    """
    return np.asarray(np.asarray(hours, np.float64) / timestep + 1 - EDGE).astype(np.int64)


def bin_of(hours: np.ndarray | float, timestep: float = 1.0) -> np.ndarray:
    """Bin of an event `hours` after intime.

    >>> bin_of([0.0, 1.0, 47.9], 1.0).tolist()
    [0, 0, 47]
    """
    return np.asarray(np.asarray(hours, np.float64) / timestep - EDGE).astype(np.int64)


def ends_mid_bin(hours: np.ndarray, timestep: float = 1.0) -> np.ndarray:
    """Is the window's end not the end of its last bin, so that later events of that bin must stay out?"""
    return bins_of(hours, timestep) * timestep - hours > EDGE * timestep + 1e-9


def expand(codes: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Values or slots [N, 17] and their mask [N, 17] -> channels [N, 76], float32."""
    grid = np.zeros((len(codes), CHANNELS), np.float32)
    rows = np.arange(len(codes))
    for place, variable in enumerate(variables()):
        if variable.categories:
            grid[rows, variable.first_channel + codes[:, place].astype(np.int64)] = 1
        else:
            grid[:, variable.first_channel] = codes[:, place]
        grid[:, variable.mask_channel] = observed[:, place]
    return grid


def _normal_codes() -> np.ndarray:
    return np.array([variable.normal_code for variable in variables()])


def hourly_grid(
    records: np.ndarray, first_stay: int, lengths: np.ndarray, timestep: float = 1.0
) -> np.ndarray:
    """Grids of consecutive stays, one below the other: [sum of lengths, 76], float32, in the units of the
    variables.

    `records`: deduplicated events of stays first_stay ... in order of time (datasets.events.RECORD);
    `lengths`: bins of each stay. In a bin the last event wins; a value is carried forward, and before the
    first one stands the normal value.
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    stay = records["stay_row"] - first_stay
    row = starts[stay] + bin_of(records["second"] / 3600, timestep)
    inside = row < ends[stay]
    cell = (row[inside], records["variable"][inside])
    codes, observed = np.zeros((int(lengths.sum()), 17)), np.zeros((int(lengths.sum()), 17), bool)
    codes[cell] = records["value"][
        inside
    ]  # in order of time, so that the last event of a bin is the one that stays
    observed[cell] = True
    latest = np.where(observed, np.arange(len(codes))[:, None], -1)
    np.maximum.accumulate(latest, axis=0, out=latest)
    seen = latest >= np.repeat(starts, lengths)[:, None]
    carried = np.take_along_axis(codes, np.maximum(latest, 0), axis=0)
    return expand(np.where(seen, carried, _normal_codes()), observed)


def tail_rows(
    records: np.ndarray, stay_row: np.ndarray, end_hours: np.ndarray, timestep: float = 1.0
) -> np.ndarray:
    """Last rows of windows that end inside a bin: [N, 76], made of events up to end_hours alone.

    `records` as in hourly_grid, of any stays that include `stay_row`.
    """
    place = np.arange(17)
    key = _moment(records["stay_row"], records["variable"], records["second"])
    order = np.argsort(key, kind="stable")
    key, values, seconds = key[order], records["value"][order], records["second"][order]
    asked = _moment(stay_row[:, None], place[None], np.floor(end_hours[:, None] * 3600 + 1e-3))
    found = np.searchsorted(key, asked, side="right") - 1
    at = np.maximum(found, 0)
    if not len(key):
        return expand(np.broadcast_to(_normal_codes(), asked.shape), np.zeros(asked.shape, bool))
    seen = (found >= 0) & (key[at] >> 32 == asked >> 32)
    last_bin = bins_of(end_hours, timestep) - 1
    observed = seen & (bin_of(seconds[at] / 3600, timestep) == last_bin[:, None])
    return expand(np.where(seen, values[at], _normal_codes()), observed)


def _moment(stay_row: np.ndarray, variable: np.ndarray, second: np.ndarray) -> np.ndarray:
    group = stay_row.astype(np.int64) * 17 + variable
    return group << 32 | second.astype(np.int64)


@dataclass
class Normalizer:
    """Mean and standard deviation of the 12 continuous channels, fitted on the hours of train stays alone."""

    count: int
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls) -> "Normalizer":
        """A normaliser that has seen nothing."""
        width = len(continuous_channels())
        return cls(0, np.zeros(width), np.zeros(width))

    def add(self, grid: np.ndarray) -> None:
        """Take in rows of a train stay's grid [N, 76]. Sums are of distances to the normal values: no
        cancellation.
        """
        distance = grid[:, continuous_channels()].astype(np.float64) - self._origin()
        self.count += len(grid)
        self.total += distance.sum(0)
        self.squares += (distance**2).sum(0)

    @staticmethod
    def _origin() -> np.ndarray:
        return np.array([v.normal_code for v in variables() if not v.categories])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, standard deviation) in the units of the channels; a channel that never varies has deviation
        1.
        """
        if not self.count:
            width = len(continuous_channels())
            return self._origin(), np.ones(width)
        mean = self.total / self.count
        deviation = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        return self._origin() + mean, np.where(deviation > 1e-7, deviation, 1.0)

    def to_json(self) -> str:
        """As stored in normalizer.json."""
        mean, deviation = self.statistics()
        names = [v.name for v in variables() if not v.categories]
        return (
            json.dumps({"channels": names, "mean": mean.tolist(), "std": deviation.tolist()}, indent=2) + "\n"
        )
