"""The predictions of a run as meds-evaluation reads them: `python -m evaluation.meds`."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.export import new_folder
from datasets.meds.schema import LABEL_KEYS, folder_name, with_columns
from datasets.store import Store
from evaluation.predictions import read_predictions
from tasks.meds import prediction_times
from utils.cli import run_cli
from utils.log import logger

# Its reader asks for both columns of a prediction; one of them may be empty.
SCHEMA = pa.schema(
    [*with_columns(LABEL_KEYS, boolean_value=pa.bool_()), ("predicted_boolean_value", pa.bool_()),
     ("predicted_boolean_probability", pa.float32())]
)  # fmt: skip


@dataclass(frozen=True)
class PredictionsConfig:
    """Write the predictions of a run as meds-evaluation reads them: a Parquet file for each label."""

    source: Path
    """Folder of the run, with its predictions_<split>.csv."""
    store: Path
    """Folder of the store that the run was trained on, which has the times of ICU admission."""
    out: Path
    """Folder to write; it must not exist yet."""
    split: str = "test"
    """Split whose predictions are written."""


def write_meds_predictions(config: PredictionsConfig) -> None:
    """Write `<label>.parquet` for each label, and for each class of an ordinal one.

    Rows are sorted by subject and time; samples with an unknown label are left out.

    Raises:
        ValueError: The folder exists, or the store does not have the stays of the predictions.
    """
    path = config.source / f"predictions_{config.split}.csv"
    table = read_predictions(path)
    stays = Store.open_without_samples(config.store).stays(["stay_id", "intime"]).set_index("stay_id")
    if not table["stay_id"].isin(stays.index).all():
        raise ValueError(f"{path} has stays that {config.store} has not; give the --store of that run")
    intime = stays["intime"][table["stay_id"]].to_numpy("datetime64[us]")
    table["prediction_time"] = prediction_times(intime, table["end_hours"])
    known = table[table["truth"].notna()].sort_values(["subject_id", "prediction_time"], kind="stable")
    with new_folder(config.out) as folder:
        for label, rows in known.groupby("label", sort=False):
            pq.write_table(_as_meds(rows), folder / f"{folder_name(str(label))}.parquet")
    logger.info(f"predictions of {table['label'].nunique()} labels: {config.out}")


def _as_meds(rows: pd.DataFrame) -> pa.Table:
    columns = [
        pa.array(rows["subject_id"], pa.int64()),
        pa.array(rows["prediction_time"], pa.timestamp("us")),
        pa.array(rows["truth"].to_numpy() == 1),
        pa.nulls(len(rows), pa.bool_()),
        pa.array(rows["probability"], pa.float32()),
    ]
    return pa.table(columns, SCHEMA)


if __name__ == "__main__":
    run_cli(write_meds_predictions, PredictionsConfig)
