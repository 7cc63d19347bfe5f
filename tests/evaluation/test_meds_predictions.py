"""Predictions as meds-evaluation reads them: a file a label, with the truth and the time of each sample."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.store import Store
from evaluation.meds import PredictionsConfig, write_meds_predictions
from tests.stores import write_store

SCHEMA = {"subject_id": pa.int64(), "prediction_time": pa.timestamp("us"), "boolean_value": pa.bool_(),
          "predicted_boolean_value": pa.bool_(), "predicted_boolean_probability": pa.float32()}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("meds") / "store", stays=10, images=5))


@pytest.mark.parametrize(
    "labels", [["y_true"], ["Fluid and electrolyte disorders", "Shock"], ["y[0]", "y[1]"]]
)
def test_each_label_is_a_file_with_the_time_of_each_known_sample(
    labels: list[str], store: Store, tmp_path: Path
) -> None:
    stays, rng = store.stays().iloc[::-1], np.random.default_rng(0)
    table = stays[["stay_id", "subject_id"]].loc[stays.index.repeat(len(labels))]
    table["end_hours"] = np.repeat(rng.uniform(1, 50, len(stays)), len(labels))
    table["label"] = np.tile(labels, len(stays))
    truth = rng.choice([0.0, 1.0, np.nan], len(table))
    table = table.assign(truth=pd.array(truth).astype("Int8"), probability=rng.random(len(table)))
    table.to_csv(tmp_path / "predictions_test.csv", index=False)
    write_meds_predictions(PredictionsConfig(tmp_path, store.folder, tmp_path / "out"))
    assert len([*(tmp_path / "out").iterdir()]) == len(labels)
    for label in labels:
        name = {"y[0]": "y_0", "y[1]": "y_1"}.get(label, label.lower().replace(" ", "_"))
        path = tmp_path / "out" / f"{name}.parquet"
        assert {field.name: field.type for field in pq.read_schema(path)} == SCHEMA
        known = table[(table["label"] == label) & table["truth"].notna()].iloc[::-1]  # one stay a subject
        written = pd.read_parquet(path)
        times = stays.set_index("stay_id")["intime"][known["stay_id"]].reset_index(drop=True)
        hours = (written["prediction_time"] - times).dt.total_seconds() / 3600
        np.testing.assert_allclose(hours, known["end_hours"], atol=1e-9)
        assert written["subject_id"].tolist() == known["subject_id"].tolist()
        assert written["boolean_value"].tolist() == known["truth"].astype(bool).tolist()
        np.testing.assert_allclose(written["predicted_boolean_probability"], known["probability"], rtol=1e-6)
        assert written["predicted_boolean_value"].isna().all()


def test_predictions_of_another_store_are_refused(store: Store, tmp_path: Path) -> None:
    row = {"stay_id": 1, "subject_id": 1, "end_hours": 1.0, "label": "y", "truth": 1, "probability": 0.5}
    pd.DataFrame([row]).to_csv(tmp_path / "predictions_test.csv", index=False)
    with pytest.raises(ValueError, match="give the --store of that run"):
        write_meds_predictions(PredictionsConfig(tmp_path, store.folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
