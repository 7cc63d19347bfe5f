"""Files and columns of MEDS 0.4, as the package `meds` 0.4.1 checks them."""

import re

import pyarrow as pa

MEDS_VERSION = "0.4.1"
DATA, METADATA, LABELS = "data", "metadata", "task_labels"  # folders of a dataset
SPLITS_FILE, CODES_FILE, DATASET_FILE = "subject_splits.parquet", "codes.parquet", "dataset.json"
MEDS_SPLITS = {"train": "train", "val": "tuning", "test": "held_out"}
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


DATA_SCHEMA = pa.schema(
    [_required("subject_id", pa.int64()), ("time", pa.timestamp("us")), _required("code", pa.string()),
     ("numeric_value", pa.float32()), ("text_value", pa.large_string())]
)  # fmt: skip
SPLITS_SCHEMA = pa.schema([_required("subject_id", pa.int64()), _required("split", pa.string())])
CODES_SCHEMA = pa.schema(
    [_required("code", pa.string()), ("description", pa.string()), ("parent_codes", pa.list_(pa.string()))]
)
LABEL_KEYS = pa.schema(
    [_required("subject_id", pa.int64()), _required("prediction_time", pa.timestamp("us"))]
)


def with_columns(keys: pa.Schema, **columns: pa.DataType) -> pa.Schema:
    """Return a schema with further columns, without missing values."""
    return pa.schema([*keys, *(_required(name, kind) for name, kind in columns.items())])


def folder_name(label: str) -> str:
    """Return the name of a label's folder.

    >>> folder_name("Pleurisy; pneumothorax; pulmonary collapse")
    'pleurisy_pneumothorax_pulmonary_collapse'
    """
    return re.sub(r"\W+", "_", label.lower()).strip("_")
