"""Nothing leaks: no later event or image, no subject in two splits, no test record in the statistics."""

from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.extract_config import ExtractConfig
from datasets.schema import SPLITS, variables
from datasets.splits import split_of
from datasets.store import Store
from tasks import TASKS
from tests.datasets.test_hourly import slow_grid
from tests.random_cohort import RandomCohort, random_cohort
from tests.stores import extract_with_samples

SEEDS = range(4)


def store_of(cohort: RandomCohort, folder: Path, **options: object) -> Path:
    iv, cxr = cohort.write(folder / "raw")
    extract_with_samples(ExtractConfig(mimic_iv=iv, mimic_cxr=cxr, out=folder / "store", **options))
    return folder / "store"


def samples(store: Path, task: str) -> pd.DataFrame:
    parts = {split: pd.read_csv(store / task / f"{split}_listfile.csv") for split in SPLITS}
    return pd.concat(frame.assign(split=split) for split, frame in parts.items())


def record_of(store: Store, task: str, sample: pd.Series, stays: pd.DataFrame) -> np.ndarray:
    """What a model sees of a sample's record: [bins, 76]."""
    first = stays["offset"][sample["stay_row"]]
    rows = store.hourly[first : first + sample["bins"]].copy()
    if sample["partial_bin_row"] >= 0:
        rows[-1] = store.partial_bins(task)[sample["partial_bin_row"]]
    return rows


def everything_seen(store: Path) -> dict[tuple[str, int, float], tuple[bytes, str]]:
    """(task, stay, prediction time) -> the record's bytes and the image's name."""
    opened, stays = Store.open(store), pd.read_parquet(store / "stays.parquet")
    names = [*pd.read_parquet(store / "cxr.parquet")["dicom_id"], ""]
    return {
        (task, s["stay_id"], s["end_hours"]): (
            record_of(opened, task, s, stays).tobytes(),
            names[s["cxr_row"]],
        )
        for task in TASKS
        for _, s in samples(store, task).iterrows()
    }


def without_what_comes_after(cohort: RandomCohort, hours: float) -> RandomCohort:
    """The same cohort, in which nothing is charted or imaged later than `hours` into a stay."""
    cut = deepcopy(cohort)
    limit = {stay: intime + timedelta(hours=hours) for stay, intime in cohort.intime.items()}
    for table in ("chartevents", "labevents"):
        rows = cut.tables[table]
        cut.tables[table] = [r for r in rows if datetime.fromisoformat(r["charttime"]) <= limit[r["stay_id"]]]
    moments = {
        row["dicom_id"]: datetime.strptime(f"{row['StudyDate']} {int(row['StudyTime']):06d}", "%Y%m%d %H%M%S")
        for row in cut.metadata
    }
    cut.metadata = [r for r in cut.metadata if moments[r["dicom_id"]] <= limit[r["study_id"] // 10]]
    return cut


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("timestep", "hours"), [(1.0, 9.0), (1.0, 20.0), (2.0, 9.0), (0.8, 13.0)])
def test_removing_the_future_changes_nothing_that_was_seen_before_it(
    tmp_path: Path, seed: int, timestep: float, hours: float
) -> None:
    cohort = random_cohort(seed)
    store = store_of(cohort, tmp_path / "whole", timestep=timestep)
    cut = everything_seen(
        store_of(without_what_comes_after(cohort, hours), tmp_path / "cut", timestep=timestep)
    )
    stays = pd.read_parquet(store / "stays.parquet")
    begun = set(
        stays["stay_id"][stays["first_event_hours"] <= hours]
    )  # a stay without events gives no sample
    whole = everything_seen(store).items()
    earlier = {key: seen for key, seen in whole if key[1] in begun and key[2] <= hours}
    assert len(earlier) > 30
    assert {key: cut.get(key) for key in earlier} == earlier


@pytest.mark.parametrize("seed", SEEDS)
def test_a_window_that_ends_inside_a_bin_is_made_of_the_events_before_its_end(
    tmp_path: Path, seed: int
) -> None:
    store = store_of(random_cohort(seed), tmp_path)
    opened, stays = Store.open(store), pd.read_parquet(store / "stays.parquet")
    events = pd.read_parquet(store / "events.parquet")
    place = {variable.name: number for number, variable in enumerate(variables())}
    hidden = 0
    for _, sample in samples(store, "radiology").iterrows():
        own = events[events["stay_id"] == sample["stay_id"]]
        charted = [(e.hours, place[e.variable], e.value) for e in own.itertuples()]
        seen = record_of(opened, "radiology", sample, stays)
        assert (seen == slow_grid(charted, sample["end_hours"], 1.0)).all()
        hidden += own["hours"].between(sample["end_hours"], sample["bins"], inclusive="right").any()
    assert hidden > 2


@pytest.mark.parametrize("seed", SEEDS)
def test_no_image_is_later_than_the_prediction_and_none_is_missed(tmp_path: Path, seed: int) -> None:
    store = store_of(random_cohort(seed), tmp_path)
    images = pd.read_parquet(store / "cxr.parquet")
    for task in TASKS:
        for _, sample in samples(store, task).iterrows():
            own = images[
                (images["stay_row"] == sample["stay_row"]) & (images["hours"] <= sample["end_hours"] + 1e-9)
            ]
            wanted = own.index[-1] if len(own) else -1
            assert sample["cxr_row"] == wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_subjects_of_different_splits_are_disjoint_in_both_modalities(tmp_path: Path, seed: int) -> None:
    store = store_of(random_cohort(seed, 30), tmp_path)
    images, stays = pd.read_parquet(store / "cxr.parquet"), pd.read_parquet(store / "stays.parquet")
    subjects: dict[str, set[int]] = {split: set() for split in SPLITS}
    for task in TASKS:
        found = samples(store, task)
        for split, own in found.groupby("split"):
            subjects[split] |= set(stays["subject_id"][own["stay_row"]])
            subjects[split] |= set(images["subject_id"][own["cxr_row"][own["cxr_row"] >= 0]])
    assert subjects["test"] and subjects["train"]
    assert sum(map(len, subjects.values())) == len(set.union(*subjects.values()))
    assert all(split_of(subject) == split for split, own in subjects.items() for subject in own)


def test_the_normaliser_does_not_change_when_test_and_validation_records_do(tmp_path: Path) -> None:
    cohort = random_cohort(0, 30)
    changed = deepcopy(cohort)
    for row in changed.tables["chartevents"]:
        if split_of(row["subject_id"]) != "train" and row["itemid"] != 220739:
            row["value"] = "139"
    stores = [store_of(c, tmp_path / name) for c, name in ((cohort, "a"), (changed, "b"))]
    one, other = ((store / "normalizer.json").read_text() for store in stores)
    assert one == other
    assert (stores[0] / "hourly.npy").read_bytes() != (stores[1] / "hourly.npy").read_bytes()


def test_published_lists_decide_the_split_of_both_modalities(tmp_path: Path) -> None:
    cohort = random_cohort(1)
    for name, chosen in (("test", 10_000_000), ("val", 10_000_001)):
        lines = [f"{p['subject_id']},{int(p['subject_id'] == chosen)}" for p in cohort.tables["patients"]]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    lists = {"test_subjects": tmp_path / "test.csv", "val_subjects": tmp_path / "val.csv"}
    store = store_of(cohort, tmp_path, **lists)
    stays = pd.read_parquet(store / "stays.parquet")
    assert set(stays["subject_id"][stays["split"] == "test"]) == {10_000_000}
    assert set(stays["subject_id"][stays["split"] == "val"]) == {10_000_001}
