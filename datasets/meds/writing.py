"""Writes the stays, diagnoses and observations of a store as the data and metadata of a MEDS dataset."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.meds.schema import (
    CODES_FILE,
    CODES_SCHEMA,
    DATA,
    DATA_SCHEMA,
    DATASET_FILE,
    DEATH,
    MEDS_SPLITS,
    MEDS_VERSION,
    METADATA,
    SPLITS_FILE,
    SPLITS_SCHEMA,
)
from datasets.schema import variables
from datasets.store import Store

STAYS_AT_ONCE = 256
ID_COLUMNS = {"hadm_id": pa.int64(), "icustay_id": pa.int64()}  # beside the standard's, as in MIMIC_IV_MEDS
SHARD_SCHEMA = pa.schema([*DATA_SCHEMA, *ID_COLUMNS.items()])
STAY_COLUMNS = [
    "subject_id", "hadm_id", "stay_id", "split", "intime", "outtime", "admittime", "dischtime", "deathtime",
    "dod", "last_careunit", "sex", "race", "mortality", "events",
]  # fmt: skip


def write_dataset(store: Store, folder: Path) -> None:
    """Write `data/` and `metadata/`: one file a split, each subject in one, its rows in order of time."""
    stays = store.stays(STAY_COLUMNS)
    diagnoses = pl.from_pandas(store.diagnoses()[["stay_id", "icd_code", "icd_version"]])
    codes: set[str] = set()
    writers = {}
    for name in MEDS_SPLITS.values():
        path = folder / DATA / name / "0.parquet"
        path.parent.mkdir(parents=True)
        writers[name] = pq.ParquetWriter(path, SHARD_SCHEMA, compression="zstd")
    for rows in _blocks(stays["subject_id"].to_numpy()):
        block = pl.from_pandas(stays.iloc[rows]).with_columns(pl.col(pl.Datetime).cast(pl.Datetime("us")))
        events = pl.concat([*_records(block, diagnoses), _observations(store, stays, rows)], how="diagonal")
        events = events.join(block.select("subject_id", "split").unique(), on="subject_id")
        events = events.sort("subject_id", "time", nulls_last=False, maintain_order=True)
        codes.update(events["code"].unique())
        for (split,), part in events.partition_by("split", as_dict=True).items():
            table = part.select(SHARD_SCHEMA.names).to_arrow().cast(SHARD_SCHEMA)
            writers[MEDS_SPLITS[str(split)]].write_table(table)
    for writer in writers.values():
        writer.close()
    _write_metadata(store, stays, sorted(codes), folder / METADATA)


def _blocks(subject_id: np.ndarray) -> Iterator[slice]:
    """Yield the rows of some stays at a time, all of a subject together."""
    starts = np.flatnonzero(np.append(True, subject_id[1:] != subject_id[:-1]))
    first = np.unique(starts // STAYS_AT_ONCE, return_index=True)[1]
    for start, stop in pairwise([*starts[first].tolist(), len(subject_id)]):
        yield slice(start, stop)


def _records(stays: pl.DataFrame, diagnoses: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the events that are not observations, in the order that they have at one moment."""
    sex = stays.select("subject_id", code=pl.format("GENDER//{}", "sex")).unique()
    yield sex.drop_nulls().with_columns(time=pl.lit(None, pl.Datetime("us")))
    admission = [pl.col("subject_id"), pl.col("hadm_id")]
    stay = [*admission, pl.col("stay_id").alias("icustay_id")]
    found = diagnoses.join(stays, on="stay_id", how="inner", maintain_order="left")
    code = pl.format("DIAGNOSIS//ICD//{}//{}", "icd_version", "icd_code")
    place = pl.when(pl.col("mortality") == 1).then(pl.lit("//DIED")).otherwise(pl.lit(""))
    death = pl.coalesce(pl.col("deathtime").min(), pl.col("dod").first())
    for events in (
        stays.select(*admission, time="admittime", code=pl.lit("HOSPITAL_ADMISSION")),
        stays.select(*admission, time="admittime", code=pl.format("RACE//{}", "race")),
        stays.select(*stay, time="intime", code=pl.format("ICU_ADMISSION//{}", "last_careunit")),
        stays.select(*stay, time="outtime", code=pl.format("ICU_DISCHARGE//{}", "last_careunit")),
        found.select(*admission, time="dischtime", code=code),
        stays.select(*admission, time="dischtime", code=pl.format("HOSPITAL_DISCHARGE{}", place)),
        stays.group_by("subject_id").agg(time=death).with_columns(code=pl.lit(DEATH)),
    ):
        yield events.drop_nulls(["time", "code"])


def _observations(store: Store, stays: pd.DataFrame, rows: slice) -> pl.DataFrame:
    """Return the cleaned observations of stays: a number, or the text of a category."""
    events = store.events(stays["events"].to_numpy(), rows)
    stay = stays.iloc[events["stay_row"]]
    texts = {variable.name: variable.categories for variable in variables() if variable.categories}
    name, value = events["variable"].astype(str).to_numpy(), events["value"].to_numpy()
    is_text = np.isin(name, list(texts))
    text = np.full(len(events), None, object)
    text[is_text] = [texts[n][int(v)] for n, v in zip(name[is_text], value[is_text], strict=True)]
    seconds = pd.to_timedelta(np.round(events["hours"].to_numpy() * 3600), unit="s")
    columns = {
        "subject_id": stay["subject_id"].to_numpy(),
        "hadm_id": stay["hadm_id"].to_numpy(),
        "icustay_id": stay["stay_id"].to_numpy(),
        "time": (stay["intime"].reset_index(drop=True) + seconds).astype("datetime64[us]"),
        "code": pl.Series(name.tolist(), dtype=pl.String),
        "numeric_value": pl.Series(np.where(is_text, np.nan, value), dtype=pl.Float32, nan_to_null=True),
        "text_value": pl.Series(text.tolist(), dtype=pl.String),
    }
    return pl.DataFrame(columns)


def _write_metadata(store: Store, stays: pd.DataFrame, codes: list[str], folder: Path) -> None:
    folder.mkdir()
    subjects = stays.drop_duplicates("subject_id")
    splits = [subjects["subject_id"], subjects["split"].map(MEDS_SPLITS)]
    pq.write_table(pa.table([pa.array(column) for column in splits], SPLITS_SCHEMA), folder / SPLITS_FILE)
    empty = [None] * len(codes)
    pq.write_table(pa.table([codes, empty, empty], CODES_SCHEMA), folder / CODES_FILE)
    content = {
        "dataset_name": f"MedMod, protocol {store.manifest.protocol}, {store.data_description}",
        "dataset_version": store.fingerprint,
        "etl_name": "MedMod",
        "meds_version": MEDS_VERSION,
        "other_extension_columns": list(ID_COLUMNS),
    }
    (folder / DATASET_FILE).write_text(json.dumps(content, indent=1))
