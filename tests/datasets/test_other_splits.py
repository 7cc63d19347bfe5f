"""Folds and years: other splits of a finished store, as if it had been extracted with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.data_config import DataConfig
from datasets.hourly import Normalizer
from datasets.other_splits import open_store
from datasets.samples import load_samples
from datasets.schema import SPLITS
from datasets.splits import split_by_fold, split_by_year
from datasets.store import OtherSplits, Store
from tasks import TASKS
from tests.stores import refresh_manifests, write_store

GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019")
SUBJECTS = range(10_000_000, 10_002_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 80 stays in four groups of years, the last of which has no X-ray."""
    folder = write_store(tmp_path_factory.mktemp("data") / "store", stays=80, images=40)
    stays = pd.read_parquet(folder / "stays.parquet")
    with_xray = pd.read_parquet(folder / "cxr.parquet")["stay_row"].unique()
    groups = np.where(np.isin(stays.index, with_xray), np.resize(GROUPS[:3], len(stays)), GROUPS[3])
    stays.assign(anchor_year_group=groups).to_parquet(folder / "stays.parquet")
    refresh_manifests(folder)
    return folder


def without_years(folder: Path, out: Path, value: object) -> Path:
    """A small store of a former version (value "drop"), or one whose source has no years or some."""
    write_store(out, stays=10, images=5)
    if value != "drop":
        stays = pd.read_parquet(out / "stays.parquet")
        years = pd.array([value, *[None] * 9], "string")
        stays.assign(anchor_year_group=years).to_parquet(out / "stays.parquet")
        refresh_manifests(out)
    return out


def test_folds_part_the_subjects_and_each_is_the_test_split_once() -> None:
    folds = np.array([split_by_fold(SUBJECTS, fold, 5) for fold in range(1, 6)])
    assert ((folds == "test").sum(axis=0) == 1).all()
    assert np.allclose((folds == "test").mean(axis=1), 0.2, atol=0.03)
    assert np.allclose((folds == "val").sum(axis=1) / (folds != "test").sum(axis=1), 0.1, atol=0.03)
    assert split_by_fold(list(SUBJECTS)[:9], 2, 5) == folds[1][:9].tolist()  # whoever else is there
    assert (np.array(split_by_fold(SUBJECTS, 1, 2)) == "test").mean() == pytest.approx(0.5, abs=0.03)


def test_late_years_are_tested() -> None:
    years = np.resize([2008, 2011, 2014], len(SUBJECTS))
    splits = np.array(split_by_year(SUBJECTS, years, 2011))
    assert ((splits == "test") == (years >= 2011)).all()
    assert (splits[years < 2011] == "val").mean() == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("task", ["phenotyping", "length-of-stay"])
def test_the_samples_of_a_fold_are_all_samples_by_another_split(folder: Path, task: str) -> None:
    data = DataConfig(store=folder, data_pairs="partial")
    stored, split = Store.open(folder), open_store(replace(data, fold="2/4"))
    assert (stored.split_name, split.split_name) == ("", "fold 2/4")
    subjects = split.stays()["subject_id"]
    wanted = dict(zip(subjects, split_by_fold(subjects, 2, 4), strict=True))

    def rows(store: Store, name: str) -> set[tuple[int, float, bytes, int, int]]:
        found = load_samples(store, TASKS[task], name, data, 0)
        assert store is stored or {wanted[subject] for subject in found.subject_id} == {name}
        parts = (found.stay_id, found.end_hours, found.offset, found.cxr_row, found.partial_bin_row)
        return {(*row, labels.tobytes()) for *row, labels in zip(*parts, found.raw_labels, strict=True)}

    before, after = ({name: rows(store, name) for name in SPLITS} for store in (stored, split))
    assert set.union(*before.values()) == set.union(*after.values())
    assert sum(map(len, before.values())) == sum(map(len, after.values())) and before != after


def test_the_normaliser_knows_the_hours_of_the_new_train_split_alone(folder: Path) -> None:
    store = open_store(DataConfig(store=folder, fold="1/4"))
    stays, expected = store.stays(), Normalizer.empty()
    for _, stay in stays[stays["split"] == "train"].iterrows():
        expected.add(store.hourly[stay["offset"] : stay["offset"] + stay["length"]])
    mean, deviation = store.normalizer()
    continuous = mean != 0
    assert np.allclose(mean[continuous], expected.statistics()[0], rtol=1e-6)
    assert np.allclose(deviation[continuous], expected.statistics()[1], rtol=1e-6)
    others = OtherSplits("x", stays["split"].replace({"train": "test", "test": "train"}).to_numpy())
    assert not np.allclose(replace(store, other_splits=others).normalizer()[0], mean)


def test_years_begin_with_the_last_that_has_an_x_ray(folder: Path) -> None:
    store = open_store(DataConfig(store=folder, split_by="year"))
    stays = store.stays()
    assert store.split_name == "year from 2014"
    assert set(stays["anchor_year_group"][stays["split"] == "test"]) == set(GROUPS[2:])
    assert set(stays["anchor_year_group"][stays["split"] != "test"]) == set(GROUPS[:2])
    later = open_store(DataConfig(store=folder, split_by="year", first_test_year=2017))
    assert set(later.stays()["anchor_year_group"][later.stays()["split"] == "test"]) == {GROUPS[3]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("drop", "has no anchor_year_group: a former version made it; extract again, into another folder"),
        (None, "knows no anchor_year_group: its source, such as a MEDS dataset, has shifted dates"),
        ("2008 - 2010", "9 of 10 stays of .* have no anchor_year_group such as 2014 - 2016; use --fold"),
    ],
)
def test_a_store_without_years_is_refused(folder: Path, tmp_path: Path, value: object, message: str) -> None:
    store = without_years(folder, tmp_path / "store", value)
    with pytest.raises(ValueError, match=f"--split_by year: .*{message}"):
        open_store(DataConfig(store=store, split_by="year"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": "6/5"}, "--fold 6/5 must be K/N with K from 1 to N, and N 2 or more, such as 1/5"),
        ({"fold": "1"}, "--fold 1 must be K/N"),
        ({"fold": "0/5"}, "--fold 0/5 must be K/N"),
        ({"fold": "1/5", "split_by": "year"}, "two ways to split; leave out one"),
        ({"first_test_year": 2014}, "--first_test_year 2014 is for --split_by year; add that"),
    ],
)
def test_settings_that_split_in_no_way_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


@pytest.mark.parametrize("year", [2000, 2030])
def test_a_year_that_leaves_a_split_empty_is_refused_with_those_to_choose_from(
    folder: Path, year: int
) -> None:
    groups = "2008, 2011, 2014, 2017"
    with pytest.raises(ValueError, match=rf"leaves no stay in the .* split; its groups begin in {groups}"):
        open_store(DataConfig(store=folder, split_by="year", first_test_year=year))


def test_a_damaged_listfile_is_found_in_any_split(folder: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", stays=20, images=10)
    path = store / "phenotyping/val_listfile.csv"
    table = pd.read_csv(path)
    table.assign(stay_row=table["stay_row"] + 1).to_csv(path, index=False)
    refresh_manifests(store)
    opened = open_store(DataConfig(store=store, fold="1/2"))
    with pytest.raises(ValueError, match=r"listfiles of phenotyping are not of this store: .* val samples"):
        load_samples(opened, TASKS["phenotyping"], "train", DataConfig(data_pairs="partial"), 0)
