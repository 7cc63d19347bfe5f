"""The comparison of two stores counts what differs and where, and its status says whether anything does."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.extract_config import ExtractConfig
from datasets.schema import channel_count, variables
from datasets.store import Store
from tasks import TASKS
from tests.random_cohort import random_cohort
from tests.stores import extract_with_samples, refresh_manifests
from tools.compare_stores import CompareConfig, Count, compare, main

SOME_TASKS = {name: TASKS[name] for name in ("in-hospital-mortality", "phenotyping", "radiology")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    iv, cxr = random_cohort(3, subjects=10).write(folder)
    extract_with_samples(ExtractConfig(iv, folder / "store", cxr), SOME_TASKS)
    return folder / "store"


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy"))


def counts(first: Path, second: Path) -> dict[str, Count]:
    """What the comparison found, by name."""
    return {count.what.strip(): count for count in compare(Store.open(first), Store.open(second))}


def exit_status(config: CompareConfig) -> object:
    """The status with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        main(config)
    return ended.value.code


def test_a_copy_is_equal(store: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, whole = counts(store, copy), Store.open(store)
    assert exit_status(CompareConfig(store, copy)) == 0
    assert {count[2:5] for count in found.values()} == {(0, 0, 0)}
    assert found["stays"].both == whole.manifest.stays and found["X-rays"].both == whole.manifest.images > 0
    assert found["cells of the grid"].both == whole.hourly.size == whole.manifest.hours * channel_count()
    for name, task in SOME_TASKS.items():
        samples = sum(count.samples for count in whole.tasks[name].samples.values())
        assert found[f"{name}: samples"].both == samples > 0
        assert found[f"{name}: labels"].both == samples * len(task.labels)
    assert f"{whole.hourly.size:,}" in capsys.readouterr().out


def test_each_cell_of_a_variable_that_differs_is_counted(store: Path, copy: Path) -> None:
    grid = np.load(copy / "hourly.npy")
    rate = next(variable for variable in variables() if variable.name == "Heart Rate")
    grid[[0, len(grid) // 2, -1], rate.first_channel] += 1
    grid[-1, rate.mask_channel] = 1 - grid[-1, rate.mask_channel]
    np.save(copy / "hourly.npy", grid)
    refresh_manifests(copy)
    found = counts(store, copy)
    assert found["cells of the grid"].differ == found["Heart Rate"].differ == 4
    assert found["Heart Rate"].both == 2 * len(grid) and exit_status(CompareConfig(store, copy)) == 1


def test_columns_that_may_differ_are_counted_and_are_no_failure(store: Path, copy: Path) -> None:
    stays = pd.read_parquet(copy / "stays.parquet")
    stays.loc[[0, 2], "age"] += 1
    stays.loc[1, "los_hours"] += 1e-9  # rounding
    stays.to_parquet(copy / "stays.parquet")
    refresh_manifests(copy)
    assert counts(store, copy)["age"].differ == 2 and "los_hours" not in counts(store, copy)
    assert exit_status(CompareConfig(store, copy)) == 1
    assert exit_status(CompareConfig(store, copy, may_differ=("age",))) == 0


def test_labels_are_compared_where_both_have_the_sample(store: Path, copy: Path) -> None:
    path = copy / "in-hospital-mortality" / "train_listfile.csv"
    rows = pd.read_csv(path)
    label = SOME_TASKS["in-hospital-mortality"].labels[0]
    rows[label] = rows[label].astype(int)
    rows.loc[0, label] = 1 - rows.loc[0, label]
    rows.iloc[:-1].to_csv(path, index=False)
    refresh_manifests(copy)
    found = counts(store, copy)
    assert found["in-hospital-mortality: samples"][2:4] == (1, 0)
    assert found["in-hospital-mortality: labels"].differ == 1
    shutil.rmtree(copy / "phenotyping")
    samples = counts(copy, store)["phenotyping: samples"]
    assert (
        samples.both == samples.only_first == 0
        and samples.only_second == counts(store, store)["phenotyping: samples"].both
    )


def test_a_smaller_cohort_is_matched_by_stay(store: Path, tmp_path: Path) -> None:
    stays = Store.open(store).stays()
    kept = stays["stay_id"].iloc[1::2]
    (tmp_path / "stays.txt").write_text("\n".join(map(str, kept)))
    config = ExtractConfig(store.parent / "iv", tmp_path / "store", stays=tmp_path / "stays.txt")
    extract_with_samples(config, {"phenotyping": TASKS["phenotyping"]})
    found = counts(store, tmp_path / "store")
    assert found["stays"][1:4] == (len(kept), len(stays) - len(kept), 0)
    assert found["cells of the grid"][1:] == (
        int(stays["length"].iloc[1::2].sum()) * channel_count(), 0, 0, 0, False
    )  # fmt: skip


def test_grids_of_other_bins_are_not_compared(store: Path, tmp_path: Path) -> None:
    config = ExtractConfig(store.parent / "iv", tmp_path / "store", timestep=2.0)
    extract_with_samples(config, {"phenotyping": TASKS["phenotyping"]})
    with pytest.raises(ValueError, match=r"bins of 1\.0 hours, .* of 2\.0; give two stores with the same"):
        counts(store, tmp_path / "store")
