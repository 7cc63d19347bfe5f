"""A store as a MEDS dataset with the labels of its tasks: `python -m tasks.meds --store DIR --out DIR`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.export import new_folder, open_with_samples
from datasets.meds.schema import LABEL_KEYS, LABELS, MEDS_SPLITS, folder_name, with_columns
from datasets.meds.writing import write_dataset
from datasets.store import Store
from tasks import get_task
from tasks.task import Task
from utils.cli import run_cli
from utils.log import logger

BOOLEAN = with_columns(LABEL_KEYS, boolean_value=pa.bool_())
ORDINAL = with_columns(LABEL_KEYS, integer_value=pa.int64(), float_value=pa.float32())


@dataclass(frozen=True)
class MEDSConfig:
    """Write a store as a dataset of the Medical Event Data Standard, with the labels of its tasks."""

    store: Path
    """Folder of the store (made by `python -m datasets.extract`)."""
    out: Path
    """Folder to write; it must not exist yet."""


def write_meds(config: MEDSConfig) -> None:
    """Write data, metadata and `task_labels/<task>/[<label>/]<split>/0.parquet`.

    Raises:
        ValueError: The folder exists, or the store is damaged, has no samples or is of a former version.
    """
    with new_folder(config.out) as folder:
        store = open_with_samples(config.store)
        write_dataset(store, folder)
        for name in store.tasks:
            write_labels(store, get_task(name), folder / LABELS / name)
    logger.info(f"export: {config.out}")


def write_labels(store: Store, task: Task, folder: Path) -> None:
    """Write the labels of a task by split, sorted by subject and prediction time; unknown ones are left out.

    A task of several labels has a folder for each, because the standard has one label in a row; an ordinal
    one has the class as integer_value, and the listfile's number as float_value.
    """
    intime = store.stays(["intime"])["intime"].to_numpy("datetime64[us]")
    for split, meds_split in MEDS_SPLITS.items():
        samples = store.listfile(task.name, split)
        samples["prediction_time"] = prediction_times(intime[samples["stay_row"]], samples["end_hours"])
        samples = samples.sort_values(["subject_id", "prediction_time"], kind="stable")
        for label in task.labels:
            known = samples[samples[label].notna()]
            place = folder / folder_name(label) if len(task.labels) > 1 else folder
            path = place / meds_split / "0.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(_label_table(task, known, label), path)


def _label_table(task: Task, samples: pd.DataFrame, label: str) -> pa.Table:
    keys = [pa.array(samples["subject_id"]), pa.array(samples["prediction_time"], pa.timestamp("us"))]
    values = samples[label].to_numpy(np.float64)
    if task.kind == "ordinal":
        classes = task.encode(values[:, None])[:, 0].astype(np.int64)
        return pa.table([*keys, classes, values.astype(np.float32)], ORDINAL)
    return pa.table([*keys, values == 1], BOOLEAN)


def prediction_times(intime: np.ndarray, end_hours: pd.Series) -> np.ndarray:
    """Return ICU admission plus hours, as datetime64[us]."""
    times: np.ndarray = intime + np.round(end_hours.to_numpy() * 3.6e9).astype("timedelta64[us]")
    return times


if __name__ == "__main__":
    run_cli(write_meds, MEDSConfig)
