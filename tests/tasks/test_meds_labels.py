"""A store as a MEDS dataset: its files as the standard asks, and its labels those of the listfiles."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.extract_config import ExtractConfig
from datasets.meds.schema import folder_name
from datasets.schema import variables
from datasets.store import Store
from tasks import TASKS
from tasks.length_of_stay.task import bin_of_remaining
from tasks.meds import MEDSConfig, write_meds
from tests.random_cohort import random_cohort
from tests.stores import extract_with_samples

SPLITS = {"train": "train", "val": "tuning", "test": "held_out"}
KEYS = {"subject_id": pa.int64(), "prediction_time": pa.timestamp("us")}
BOOLEAN = KEYS | {"boolean_value": pa.bool_()}
ORDINAL = KEYS | {"integer_value": pa.int64(), "float_value": pa.float32()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Some random stays with X-rays, whose uncertain findings are left out."""
    folder = tmp_path_factory.mktemp("meds")
    iv, cxr = random_cohort(5, subjects=14).write(folder)
    extract_with_samples(ExtractConfig(iv, folder / "store", cxr, uncertain="ignore"))
    return Store.open(folder / "store")


@pytest.fixture(scope="module")
def exported(store: Store) -> Path:
    folder = store.folder.parent / "meds"
    write_meds(MEDSConfig(store.folder, folder))
    return folder


def types_of(path: Path) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in pq.read_schema(path)}


def test_each_subject_is_in_the_one_file_of_its_split_in_order_of_time(store: Store, exported: Path) -> None:
    splits = pd.read_parquet(exported / "metadata" / "subject_splits.parquet")
    codes = pd.read_parquet(exported / "metadata" / "codes.parquet")
    stays, seen = store.stays(), []
    for split, name in SPLITS.items():
        path = exported / "data" / name / "0.parquet"
        standard = {"subject_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string(),
                    "numeric_value": pa.float32(), "text_value": pa.large_string()}  # fmt: skip
        assert list(types_of(path).items())[:5] == list(standard.items())
        data = pd.read_parquet(path)
        assert set(data["subject_id"]) == set(stays.loc[stays["split"] == split, "subject_id"])
        assert set(splits.loc[splits["split"] == name, "subject_id"]) == set(data["subject_id"])
        assert data.sort_values(["subject_id", "time"], na_position="first", kind="stable").equals(data)
        assert data["code"].isin(codes["code"]).all()
        assert data.loc[data["time"].isna(), "code"].str.startswith("GENDER//").all()
        seen.append(data)
    assert splits["subject_id"].is_unique and sum(len(part) > 0 for part in seen) == 3


def test_observations_are_those_of_the_store(store: Store, exported: Path) -> None:
    stays = store.stays()
    events = store.events(stays["events"].to_numpy(), slice(0, len(stays)))
    parts = [pd.read_parquet(exported / "data" / name / "0.parquet") for name in SPLITS.values()]
    data = pd.concat(parts)
    texts = {v.name: v.categories for v in variables()}
    written = data[data["code"].isin(texts)].sort_values(["icustay_id", "time", "code"])
    stay = stays.iloc[events["stay_row"]].reset_index(drop=True)
    seconds = pd.to_timedelta(np.round(events["hours"] * 3600), unit="s")
    events = events.assign(time=stay["intime"] + seconds, code=events["variable"].astype(str))
    events = events.sort_values(["stay_id", "time", "code"])
    assert (written["icustay_id"].to_numpy() == events["stay_id"].to_numpy()).all()
    assert (written["time"].to_numpy() == events["time"].to_numpy("datetime64[us]")).all()
    expected = [
        texts[code][int(value)] if texts[code] else np.float32(value)
        for code, value in zip(events["code"], events["value"], strict=True)
    ]
    values = (
        written["text_value"].astype(object).where(written["text_value"].notna(), written["numeric_value"])
    )
    assert values.tolist() == expected
    assert written["text_value"].notna().any() and written["numeric_value"].notna().any()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_labels_are_those_of_the_listfiles_where_they_are_known(task, store: Store, exported: Path) -> None:
    intime, known = store.stays()["intime"], 0
    for split, name in SPLITS.items():
        listed = store.listfile(task.name, split)
        hours = pd.to_timedelta((listed["end_hours"] * 3.6e9).round(), unit="us")
        listed = listed.assign(time=intime[listed["stay_row"]].reset_index(drop=True) + hours)
        listed = listed.sort_values(["subject_id", "time"], kind="stable")
        root = exported / "task_labels" / task.name
        assert len([*root.rglob("0.parquet")]) == len(task.labels) * len(SPLITS)
        for label in task.labels:
            path = (root / folder_name(label) if len(task.labels) > 1 else root) / name / "0.parquet"
            assert types_of(path) == (ORDINAL if task.kind == "ordinal" else BOOLEAN)
            assert not any(field.nullable for field in pq.read_schema(path))
            table, rows = pd.read_parquet(path), listed[listed[label].notna()]
            known += len(rows)
            assert table["subject_id"].tolist() == rows["subject_id"].tolist()
            assert (table["prediction_time"].to_numpy() == rows["time"].to_numpy("datetime64[us]")).all()
            if task.kind == "ordinal":
                assert table["integer_value"].tolist() == bin_of_remaining(rows[label].to_numpy()).tolist()
                np.testing.assert_allclose(table["float_value"], rows[label], rtol=1e-6)
            else:
                assert table["boolean_value"].tolist() == (rows[label] == 1).tolist()
    assert known


def test_no_label_is_after_the_data_that_it_may_use(store: Store, exported: Path) -> None:
    """MEDS lets a model read up to and including the prediction time: the sample's own window."""
    labels = pd.read_parquet(exported / "task_labels" / "in-hospital-mortality" / "train" / "0.parquet")
    stays = store.stays().set_index("subject_id")
    for subject, rows in labels.groupby("subject_id"):
        intimes = stays.loc[[subject], "intime"] + pd.Timedelta(hours=48)
        assert set(rows["prediction_time"]) <= set(intimes)


def test_an_export_does_not_overwrite(store: Store, exported: Path) -> None:
    with pytest.raises(ValueError, match="exists, and an export is not continued"):
        write_meds(MEDSConfig(store.folder, exported))
