"""Summary statistics of records against scipy and pandas, window by window."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from datasets import summaries
from datasets.data_config import DataConfig
from datasets.samples import load_samples
from datasets.schema import variables
from datasets.store import Store
from datasets.summaries import STATISTICS, WINDOWS, RangeTable, feature_names, summarize
from tasks import TASKS
from tests.datasets.test_triplets import store as store  # a fixture


def slow_features(store: Store, events: pd.DataFrame, end: float) -> list[float]:
    """The features of a stay's events until an hour, by scipy."""
    mean, deviation = store.normalizer()
    found = []
    for variable in variables():
        mine = events[events["variable"] == variable.name]
        for start, stop in WINDOWS:
            inside = (mine["hours"] >= start * end - 1e-7) & (mine["hours"] <= stop * end + 1e-7)
            values = mine.loc[inside, "value"].to_numpy()
            if variable.categories:
                shares = [
                    np.mean(values == place) if len(values) else np.nan for place in range(variable.width)
                ]
                found += [*shares, len(values)]
                continue
            values = (values - mean[variable.first_channel]) / deviation[variable.first_channel]
            if not len(values):
                found += [np.nan] * 5 + [0]
            else:
                skew = stats.skew(values) if values.std() > 1e-9 else 0.0
                found += [values.mean(), values.std(), values.min(), values.max(), skew, len(values)]
    return found


@pytest.mark.parametrize("task", ["decompensation", "readmission"])
def test_features_are_scipys(store: Store, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(store=store.folder, data_pairs="ehr_all")
    samples = load_samples(store, TASKS[task], "train", config, 0)
    samples = samples.take(np.random.default_rng(0).permutation(len(samples))[:7])
    events = pd.read_parquet(store.folder / "events.parquet")
    features = summarize(store, samples)
    assert features.shape == (len(samples), len(feature_names())) and np.isfinite(features).any()
    monkeypatch.setattr(summaries, "EVENTS_AT_ONCE", 1)
    assert np.array_equal(features, summarize(store, samples), equal_nan=True)
    for row, found in enumerate(features):
        end = samples.end_hours[row]
        end = min(end, 48.0) if task == "readmission" else end
        of_stay = events[(events["stay_id"] == samples.stay_id[row]) & (events["hours"] <= end + 1e-7)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # scipy, of nearly equal values
            expected = slow_features(store, of_stay, end)
        assert np.allclose(found, expected, rtol=1e-3, atol=2e-3, equal_nan=True), samples.stay_id[row]


def test_an_outlier_outside_a_window_costs_its_statistics_no_digit() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 1e7, 3.0, 3.5])
    first, stop = np.array([[0, 5]]), np.array([[4, 7]])
    found = summaries._statistics(values, np.array([0]), first, stop)[0]
    for row, part in zip(found, (values[:4], values[5:]), strict=True):
        expected = [part.mean(), part.std(), part.min(), part.max(), stats.skew(part), len(part)]
        assert np.allclose(row, expected, rtol=1e-6, atol=1e-6)
    assert STATISTICS == ("mean", "sd", "min", "max", "skew", "count")


def test_a_table_gives_any_range() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=50)
    start = draw.integers(0, 50, 200)
    length = draw.integers(1, 51 - start)
    for function, method in ((np.add, "disjoint"), (np.minimum, "overlapping"), (np.maximum, "overlapping")):
        table = RangeTable(values, function, int(length.max()))
        expected = [function.reduce(values[s : s + n]) for s, n in zip(start, length, strict=True)]
        assert np.allclose(getattr(table, method)(start, length), expected)
