"""The hourly grid against a slow one that reads like its definition."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.events.buckets import deduplicate
from datasets.events.cleaning import EVENT_DTYPE, plausible_ranges
from datasets.hourly import Normalizer, bin_of, bins_of, ends_mid_bin, hourly_grid, partial_bin_rows
from datasets.schema import channel_count, continuous_channels, variables


def random_events(seed: int, stays: int, hours: float, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    records = np.zeros(count, EVENT_DTYPE)
    records["stay_row"] = rng.integers(0, stays, count)
    records["second"] = rng.integers(0, int(hours * 3600) + 1, count)
    records["second"][: count // 4] //= 3600
    records["second"][: count // 4] *= 3600  # events at the edges of bins
    records["variable"] = rng.integers(0, len(variables()), count)
    width = np.array([len(v.categories) for v in variables()])[records["variable"]]
    records["value"] = np.where(width > 0, rng.integers(0, np.maximum(width, 1)), rng.normal(size=count) * 50)
    return deduplicate(records)


def slow_grid(events: list[tuple[float, int, float]], hours: float, timestep: float) -> np.ndarray:
    """One window, bin by bin and channel by channel."""
    bins = int(hours / timestep + 1 - 1e-6)
    state = [v.normal_code for v in variables()]
    grid = np.zeros((bins, channel_count()), np.float32)
    for number in range(bins):
        seen = set()
        for hour, index, value in sorted(events):
            if hour <= hours + 1e-6 and int(hour / timestep - 1e-6) == number:
                state[index] = value
                seen.add(index)
        for index, variable in enumerate(variables()):
            if variable.categories:
                grid[number, variable.first_channel + int(state[index])] = 1
            else:
                grid[number, variable.first_channel] = state[index]
            grid[number, variable.mask_channel] = index in seen
    return grid


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.8, 1.0, 2.0]), st.integers(0, 60))
def test_the_grid_is_its_definition(seed: int, timestep: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    hours = np.array([rng.uniform(0.1, 12), 6.0, rng.uniform(5, 20)])
    records = random_events(seed, 3, 20, count)
    records = records[records["second"] / 3600 <= hours[records["stay_row"]]]
    grids = hourly_grid(records, 0, bins_of(hours, timestep), timestep)
    slow = [
        slow_grid(
            [(r["second"] / 3600, r["variable"], r["value"]) for r in records if r["stay_row"] == s],
            hours[s],
            timestep,
        )
        for s in range(3)
    ]
    np.testing.assert_array_equal(grids, np.concatenate(slow))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.8, 1.0, 2.0]), st.floats(0.2, 23.9))
def test_a_window_is_a_prefix_of_the_grid_but_for_a_last_row_that_ends_inside_a_bin(
    seed: int, timestep: float, end: float
) -> None:
    records = random_events(seed, 1, 24, 60)
    grid = hourly_grid(records, 0, bins_of(np.array([24.0]), timestep), timestep)
    ends = np.array([end, float(int(end))])
    for hours in ends[ends > 0]:
        wanted = slow_grid(
            [(r["second"] / 3600, r["variable"], r["value"]) for r in records], hours, timestep
        )
        window = grid[: len(wanted)].copy()
        if ends_mid_bin(np.array([hours]), timestep)[0]:
            window[-1] = partial_bin_rows(records, np.array([0]), np.array([hours]), timestep)[0]
        np.testing.assert_array_equal(window, wanted)


def test_later_events_change_no_earlier_row() -> None:
    records = random_events(3, 1, 24, 200)
    early = records[records["second"] <= 10 * 3600]
    lengths = np.array([24])
    np.testing.assert_array_equal(hourly_grid(records, 0, lengths)[:10], hourly_grid(early, 0, lengths)[:10])


CONTINUOUS, PLAIN = next((index, v) for index, v in enumerate(variables()) if not v.categories)


def events_of(stay: int, seconds: list[int]) -> np.ndarray:
    """One of a continuous variable at each of some seconds, of rising value."""
    records = np.zeros(len(seconds), EVENT_DTYPE)
    records["variable"] = CONTINUOUS
    records["stay_row"], records["second"], records["value"] = stay, seconds, np.arange(1, len(seconds) + 1)
    return records


def test_the_number_of_the_first_stay_moves_nothing() -> None:
    records, lengths = random_events(4, 2, 9, 80), np.array([9, 9])
    moved = records.copy()
    moved["stay_row"] += 7
    np.testing.assert_array_equal(hourly_grid(moved, 7, lengths), hourly_grid(records, 0, lengths))


def test_an_event_on_the_hour_belongs_to_the_hour_that_ends_however_late() -> None:
    on_the_hour = [3600 * hour for hour in range(1, 2001)]
    grid = hourly_grid(events_of(0, on_the_hour), 0, np.array([2000]))
    np.testing.assert_array_equal(grid[:, PLAIN.first_channel], np.arange(1, 2001))
    assert bins_of(2000.0) == bin_of(2000.0) + 1 == 2000


def test_an_event_after_the_last_bin_is_in_no_row() -> None:
    later = events_of(0, [2 * 3600 + 1])
    np.testing.assert_array_equal(
        hourly_grid(later, 0, np.array([2, 2])), hourly_grid(later[:0], 0, np.array([2, 2]))
    )


@pytest.mark.parametrize("end", [0.5, 1999.5])
def test_a_window_that_ends_inside_a_bin_holds_its_last_second_and_no_later_one(end: float) -> None:
    last = round(end * 3600)
    records = events_of(0, [last - 1, last, last + 1])
    row = partial_bin_rows(records, np.array([0]), np.array([end]))[0]
    assert row[PLAIN.first_channel] == 2 and row[PLAIN.mask_channel] == 1
    assert ends_mid_bin(np.array([end])) and not ends_mid_bin(np.array([2 * end]))


def test_a_stay_without_events_stands_at_the_normal_values() -> None:
    grid = hourly_grid(np.zeros(0, EVENT_DTYPE), 5, np.array([3]))
    assert grid.shape == (3, channel_count())
    assert grid[0, 50] == 86 and grid[0, 2] == 59 and not grid[:, variables()[0].mask_channel :].any()
    assert (grid[0] == partial_bin_rows(np.zeros(0, EVENT_DTYPE), np.array([5]), np.array([1.5]))[0]).all()


@pytest.mark.parametrize(
    ("hours", "timestep", "bins"), [(48, 1, 48), (48, 0.8, 60), (48, 2, 24), (47.01, 1, 48), (0.5, 1, 1)]
)
def test_number_of_bins(hours: float, timestep: float, bins: int) -> None:
    assert bins_of(hours, timestep) == bins


def plausible_grid(rows: int) -> np.ndarray:
    """Return rows [N, C] of plausible values of the continuous channels."""
    rng = np.random.default_rng(0)
    grid = np.zeros((rows, channel_count()), np.float32)
    low, high = plausible_ranges()
    grid[:, continuous_channels()] = low + (high - low) * rng.uniform(0.1, 0.9, (rows, len(low)))
    return grid


def test_the_normalizer_is_the_mean_and_deviation_of_all_rows() -> None:
    grid = plausible_grid(1000)
    grid[:, continuous_channels()[3]] = 150
    normalizer = Normalizer.empty()
    for part in np.array_split(grid, 7):
        normalizer.add(part)
    mean, deviation = normalizer.statistics()
    wanted = grid[:, continuous_channels()].astype(float)
    np.testing.assert_allclose(mean, wanted.mean(0), rtol=1e-9)
    np.testing.assert_allclose(np.delete(deviation, 3), np.delete(wanted.std(0), 3), rtol=1e-9)
    assert deviation[3] == 1


def test_implausible_values_do_not_enter_the_normalizer() -> None:
    grid, channels = plausible_grid(400), list(continuous_channels())
    clean, dirty = Normalizer.empty(), Normalizer.empty()
    clean.add(grid)
    low, high = plausible_ranges()
    for value in (low - 1, high + 1, np.full(len(low), 1e7), np.full(len(low), -np.finfo(np.float32).max)):
        outlier = grid[:1].copy()
        outlier[:, channels] = value
        dirty.add(outlier)
    dirty.add(grid)
    assert dirty.to_json() == clean.to_json()


def test_the_ends_of_the_plausible_ranges_enter_the_normalizer() -> None:
    grid = np.zeros((2, channel_count()), np.float32)
    grid[:, continuous_channels()] = np.stack(plausible_ranges())
    normalizer = Normalizer.empty()
    normalizer.add(grid)
    assert (normalizer.count == 2).all()


def test_a_normalizer_fitted_on_nothing_has_the_form_of_the_store() -> None:
    continuous = [v for v in variables() if not v.categories]
    content = {
        "channels": [v.name for v in continuous],
        "mean": [v.normal_code for v in continuous],
        "std": [1.0] * len(continuous),
    }
    assert Normalizer.empty().to_json() == json.dumps(content, indent=2) + "\n"
