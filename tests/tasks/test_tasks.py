"""Samples and labels of the tasks, on stays written by hand."""

import numpy as np
import pandas as pd
import pytest

from datasets.schema import FINDINGS
from tasks import TASKS
from tasks.phenotyping.task import CONDITIONS


def stays(**columns: list) -> pd.DataFrame:
    """Stays that differ in the columns given."""
    count = len(next(iter(columns.values())))
    usual = {
        "los_hours": 60.0,
        "death_hours": np.nan,
        "mortality": 0,
        "readmission": 0,
        "first_event_hours": 0.5,
    }
    return pd.DataFrame(
        {name: [value] * count for name, value in (usual | dict.fromkeys(CONDITIONS, 0)).items()} | columns
    )


def made(task: str, table: pd.DataFrame, protocol: str = "medmod") -> pd.DataFrame:
    images = pd.DataFrame({"stay_row": [], "hours": [], "study_id": [], **{name: [] for name in FINDINGS}})
    return TASKS[task].samples(table, images, protocol)


@pytest.mark.parametrize("task", [name for name in TASKS if name != "radiology"])
def test_a_stay_without_events_gives_no_sample(task: str) -> None:
    found = made(task, stays(first_event_hours=[np.nan, 0.5]))
    assert set(found["stay_row"]) == {1}


def test_mortality_needs_48_hours_and_an_event_in_them() -> None:
    table = stays(
        los_hours=[47.9, 48.0, 80.0, 80.0], first_event_hours=[0.0, 0.0, 49.0, 48.0], mortality=[1, 1, 1, 0]
    )
    found = made("in-hospital-mortality", table)
    assert found["stay_row"].tolist() == [1, 3] and found["y_true"].tolist() == [1, 0]
    assert set(found["end_hours"]) == {48.0} and set(found["period_length"]) == {0}


def test_decompensation_ends_with_death_and_is_positive_in_the_last_day() -> None:
    found = made("decompensation", stays(los_hours=[40.0], death_hours=[35.5], mortality=[1]))
    assert found["end_hours"].tolist() == list(np.arange(5.0, 36.0))
    assert found["y_true"].tolist() == [int(35.5 - t < 24) for t in range(5, 36)]


def test_a_death_outside_the_admission_is_no_decompensation() -> None:
    found = made("decompensation", stays(los_hours=[40.0], death_hours=[39.0], mortality=[0]))
    assert found["y_true"].sum() == 0


@pytest.mark.parametrize(("first", "hour"), [(0.0, 5), (4.0, 5), (4.5, 5), (5.0, 6), (7.2, 8)])
def test_hourly_samples_begin_after_four_hours_and_the_first_event(first: float, hour: int) -> None:
    assert made("length-of-stay", stays(first_event_hours=[first]))["end_hours"].min() == hour


def test_a_stay_of_a_whole_number_of_hours_has_its_last_hour() -> None:
    found = made("length-of-stay", stays(los_hours=[24 * 0.25]))
    assert found["end_hours"].tolist() == [5.0, 6.0] and found["y_true"].tolist() == [1.0, 0.0]


def test_remaining_hours_become_ten_bins() -> None:
    hours = np.array([[0.0], [23.99], [24.0], [47.0], [191.9], [192.0], [335.9], [336.0], [np.nan]])
    bins = TASKS["length-of-stay"].encode(hours)
    np.testing.assert_array_equal(bins[:, 0], [0, 0, 1, 1, 7, 8, 8, 9, np.nan])
    assert TASKS["length-of-stay"].outputs == 10


def test_readmission_reads_48_hours_as_published_and_under_corrected_all() -> None:
    table = stays(los_hours=[30.5, 48.0, 90.0])
    for protocol, read in (("medmod", [30.5, 48.0, 48.0]), ("corrected", [30.5, 48.0, 90.0])):
        found = made("readmission", table, protocol)
        assert found["read_hours"].tolist() == read and found["end_hours"].tolist() == [30.5, 48.0, 90.0]


def test_corrected_readmission_leaves_out_those_who_died() -> None:
    table = stays(mortality=[1, 0], readmission=[0, 1])
    assert made("readmission", table)["y_true"].tolist() == [0, 1]
    assert made("readmission", table, "corrected")["y_true"].tolist() == [1]


def test_radiology_takes_the_first_image_of_each_study() -> None:
    images = pd.DataFrame(
        {"stay_row": [0, 0, 0, 1], "hours": [1.5, 1.6, 3.0, 2.0], "study_id": [7, 7, 8, 9]}
        | {name: [0.0, 1.0, 1.0, 1.0] for name in FINDINGS}
    )
    found = TASKS["radiology"].samples(stays(los_hours=[60.0, 60.0]), images, "medmod")
    assert found["cxr_row"].tolist() == [0, 2, 3] and found["end_hours"].tolist() == [1.5, 3.0, 2.0]
    assert found["Edema"].tolist() == [0.0, 1.0, 1.0]


def test_phenotypes_fall_into_three_groups() -> None:
    groups = TASKS["phenotyping"].groups
    assert {name: len(labels) for name, labels in groups.items()} == {"acute": 13, "mixed": 5, "chronic": 7}
    assert {label for labels in groups.values() for label in labels} == set(TASKS["phenotyping"].labels)
