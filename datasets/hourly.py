"""Hourly grid of all channels, last rows of windows that end inside a bin, and the normalizer."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np

from datasets.events.cleaning import plausible_ranges
from datasets.schema import channel_count, continuous_channels, variables

EDGE = 1e-6  # tolerance in bins: an event at the very end of a bin belongs to it


def bins_of(hours: np.ndarray | float, timestep: float = 1.0) -> np.ndarray:
    """Return the number of bins of `timestep` hours in a window of `hours`.

    >>> bins_of(48.0).item(), bins_of(48.1).item(), bins_of(48.0, 0.8).item()
    (48, 49, 60)
    """
    return np.asarray(np.asarray(hours, np.float64) / timestep + 1 - EDGE).astype(np.int64)


def bin_of(hours: np.ndarray | float, timestep: float = 1.0) -> np.ndarray:
    """Return the bin of an event `hours` after intime.

    >>> bin_of([0.0, 1.0, 47.9], 1.0).tolist()
    [0, 0, 47]
    """
    return np.asarray(np.asarray(hours, np.float64) / timestep - EDGE).astype(np.int64)


def ends_mid_bin(hours: np.ndarray, timestep: float = 1.0) -> np.ndarray:
    """Return whether windows end inside their last bin, whose later events must then be left out."""
    return np.asarray(bins_of(hours, timestep) * timestep - hours > EDGE * timestep + 1e-9)


def expand(codes: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Turn values or slots [N, V] and their mask [N, V] into channels [N, C], float32."""
    grid = np.zeros((len(codes), channel_count()), np.float32)
    rows = np.arange(len(codes))
    for index, variable in enumerate(variables()):
        if variable.categories:
            grid[rows, variable.first_channel + codes[:, index].astype(np.int64)] = 1
        else:
            grid[:, variable.first_channel] = codes[:, index]
        grid[:, variable.mask_channel] = observed[:, index]
    return grid


def _normal_codes() -> np.ndarray:
    return np.array([variable.normal_code for variable in variables()])


def hourly_grid(
    events: np.ndarray, first_stay: int, lengths: np.ndarray, timestep: float = 1.0
) -> np.ndarray:
    """Return the grids of consecutive stays, one after the other: [sum of lengths, C], float32.

    Values are in the variables' units. The last event in a bin wins; later bins carry its value forward, and
    bins before the first event hold the normal value.

    `events` are the deduplicated events (EVENT_DTYPE) of the stays from row `first_stay` on, in order of
    time; `lengths` [stays] is the number of bins of each, of `timestep` hours.
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    stay = events["stay_row"] - first_stay
    row = starts[stay] + bin_of(events["second"] / 3600, timestep)
    in_grid = row < ends[stay]
    shape = (len(variables()), int(lengths.sum()))  # the bins of a variable lie together, which is faster
    cell = (events["variable"] * np.int64(shape[1]) + row)[in_grid]
    codes, observed = np.zeros(shape), np.zeros(shape, bool)
    codes.ravel()[cell] = events["value"][in_grid]  # in order of time: the last event of a bin is kept
    observed.ravel()[cell] = True
    bins, first_bin = np.arange(shape[1], dtype=np.int32), np.repeat(starts, lengths)
    for values, is_observed, normal in zip(codes, observed, _normal_codes(), strict=True):
        latest = np.maximum.accumulate(np.where(is_observed, bins, np.int32(-1)))
        values[:] = np.where(latest >= first_bin, values[np.maximum(latest, 0)], normal)
    return expand(codes.T, observed.T)


def partial_bin_rows(
    events: np.ndarray, stay_row: np.ndarray, end_hours: np.ndarray, timestep: float = 1.0
) -> np.ndarray:
    """Return the last rows [N, C] of windows that end inside a bin, made of events up to the end alone.

    `stay_row` [N] is the stay of each window, `end_hours` [N] its end since intime. `events` are as in
    `hourly_grid`, of any stays that include those of the windows.
    """
    events = events.compress(np.isin(events["stay_row"], stay_row))  # windows are of few stays
    event_keys = _sort_key(events["stay_row"], events["variable"], events["second"])
    order = np.argsort(event_keys, kind="stable")
    event_keys, values, seconds = event_keys[order], events["value"][order], events["second"][order]
    last_second = np.floor(end_hours[:, None] * 3600 + 1e-3)
    window_keys = _sort_key(stay_row[:, None], np.arange(len(variables()))[None], last_second)
    if not len(events):
        return expand(np.broadcast_to(_normal_codes(), window_keys.shape), np.zeros(window_keys.shape, bool))
    latest = np.searchsorted(event_keys, window_keys, side="right") - 1
    has_earlier = latest >= 0
    latest = np.maximum(latest, 0)
    seen = has_earlier & (event_keys[latest] >> 32 == window_keys >> 32)
    last_bin = bins_of(end_hours, timestep) - 1
    observed = seen & (bin_of(seconds[latest] / 3600, timestep) == last_bin[:, None])
    return expand(np.where(seen, values[latest], _normal_codes()), observed)


def _sort_key(stay_row: np.ndarray, variable: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return int64 keys that sort by stay, variable and second; stay and variable are above bit 32."""
    group: np.ndarray = stay_row.astype(np.int64) * len(variables()) + variable
    return group << 32 | second.astype(np.int64)


@dataclass
class Normalizer:
    """Mean and standard deviation of the continuous channels, fitted on the hours of train stays alone.

    Hours with an implausible value (datasets/resources/variables.yaml) do not count for its channel: a single
    heart rate of 10,000,000 would make all others equal. Sums [K] are of distances to the normal values, so
    that no precision is lost to cancellation; `count` [K] is the number of hours.
    """

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """Return a normalizer that is fitted on nothing."""
        width = len(continuous_channels())
        return cls(np.zeros(width, np.int64), np.zeros(width), np.zeros(width))

    def add(self, grid: np.ndarray) -> None:
        """Add rows [N, C] of a train stay's grid."""
        values = grid[:, continuous_channels()]
        low, high = (limit.astype(np.float32) for limit in plausible_ranges())  # rounded as the grid is
        plausible = (values >= low) & (values <= high)
        distance = values.astype(np.float64) - self._origin()
        distance[~plausible] = 0
        self.count += plausible.sum(0)
        self.total += distance.sum(0)
        self.squares += (distance**2).sum(0)

    @staticmethod
    def _origin() -> np.ndarray:
        return np.array([v.normal_code for v in variables() if not v.categories])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation [K] in the channels' units, 1 for a constant channel."""
        count = np.maximum(self.count, 1)
        mean = self.total / count
        deviation = np.sqrt(np.maximum(self.squares / count - mean**2, 0))
        return self._origin() + mean, np.where(deviation > 1e-7, deviation, 1.0)

    def to_json(self) -> str:
        """Return the text of normalizer.json."""
        mean, deviation = self.statistics()
        names = [v.name for v in variables() if not v.categories]
        content = {"channels": names, "mean": mean.tolist(), "std": deviation.tolist()}
        return json.dumps(content, indent=2) + "\n"
