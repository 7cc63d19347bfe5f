"""A MEDS dataset of raw tables, as MIMIC_IV_MEDS makes it, in either of its dialects."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.splits import split_of

SPLITS = {"train": "train", "val": "tuning", "test": "held_out"}
SCHEMA = pa.schema(
    [("subject_id", pa.int64()), ("time", pa.timestamp("us")), ("code", pa.string()),
     ("numeric_value", pa.float32()), ("text_value", pa.large_string()), ("hadm_id", pa.int64()),
     ("icustay_id", pa.int64()), ("race", pa.large_string())]
)  # fmt: skip
Tables = Mapping[str, Sequence[Mapping[str, Any]]]


def write_meds(
    folder: Path, tables: Tables, lab_time: str = "charttime", without: Sequence[str] = ()
) -> Path:
    """Write a dataset with a shard a split, without some columns; return its folder."""
    rows = pl.DataFrame(list(events_of(tables, lab_time)), SCHEMA_OF_POLARS)
    rows = rows.sort("subject_id", "time", nulls_last=False, maintain_order=True).drop(without)
    split = {subject: SPLITS[split_of(subject)] for subject in rows["subject_id"].unique()}
    for name in SPLITS.values():
        own = rows.filter(pl.col("subject_id").is_in([s for s, n in split.items() if n == name]))
        path = folder / "data" / name / "0.parquet"
        path.parent.mkdir(parents=True)
        kept = pa.schema([field for field in SCHEMA if field.name not in without])
        pq.write_table(own.to_arrow().cast(kept), path)
    (folder / "metadata").mkdir()
    pl.DataFrame({"subject_id": list(split), "split": list(split.values())}).write_parquet(
        folder / "metadata" / "subject_splits.parquet"
    )
    return folder


SCHEMA_OF_POLARS = {
    "subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32,
    "text_value": pl.String, "hadm_id": pl.Int64, "icustay_id": pl.Int64, "race": pl.String,
}  # fmt: skip


def events_of(tables: Tables, lab_time: str) -> Iterator[dict[str, Any]]:
    """Yield the events of raw tables by the rules of MIMIC_IV_MEDS 0.0.7 (charttime) or 0.2.0 (storetime)."""
    died = {}
    for row in tables["admissions"]:
        hadm = {"subject_id": row["subject_id"], "hadm_id": row["hadm_id"]}
        died.setdefault(row["subject_id"], row.get("deathtime") or None)
        died[row["subject_id"]] = died[row["subject_id"]] or row.get("deathtime") or None
        kind = row.get("admission_type") or "UNK"
        race = {"race": row["race"]} if lab_time == "charttime" else {}
        yield hadm | race | at(row["admittime"]) | {"code": f"HOSPITAL_ADMISSION//{kind}//UNK"}
        if not race:
            yield hadm | at(row["admittime"]) | {"code": f"RACE//{row['race']}"}
        place = row.get("discharge_location") or "UNK"
        yield hadm | at(row["dischtime"]) | {"code": f"HOSPITAL_DISCHARGE//{place}"}
        for code in tables["diagnoses_icd"]:
            if code["hadm_id"] == row["hadm_id"]:
                name = f"DIAGNOSIS//ICD//{code['icd_version']}//{code['icd_code']}"
                yield hadm | at(row["dischtime"]) | {"code": name}
    for row in tables["patients"]:
        own = {"subject_id": row["subject_id"]}
        yield own | {"code": f"GENDER//{row['gender']}"}
        yield own | at(f"{row['anchor_year'] - row['anchor_age']}-01-01 00:00:00") | {"code": "MEDS_BIRTH"}
        if death := died.get(row["subject_id"]) or row.get("dod"):
            yield own | at(death) | {"code": "MEDS_DEATH"}
    for row in tables["icustays"]:
        ids = {"subject_id": row["subject_id"], "hadm_id": row["hadm_id"], "icustay_id": row["stay_id"]}
        yield ids | at(row["intime"]) | {"code": f"ICU_ADMISSION//{row['first_careunit']}"}
        yield ids | at(row["outtime"]) | {"code": f"ICU_DISCHARGE//{row['last_careunit']}"}
    for name in ("chartevents", "labevents"):
        for row in tables[name]:
            ids = {"subject_id": row["subject_id"], "hadm_id": row["hadm_id"]}
            is_result = name == "labevents" and lab_time == "storetime"
            prefix, time = ("LAB//RESULT", "storetime") if is_result else ("LAB", "charttime")
            if is_result:
                yield ids | at(row["charttime"]) | {"code": f"LAB//SPECIMEN_COLLECTED//{row['itemid']}//UNK"}
            if name == "chartevents":
                ids["icustay_id"] = row["stay_id"]
            if row.get(time):
                yield ids | at(row[time]) | value_of(row) | {"code": f"{prefix}//{row['itemid']}//UNK"}


def at(time: str) -> dict[str, datetime]:
    """Return the time of an event."""
    return {"time": datetime.fromisoformat(time)}


def value_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number and the text of a row; as in MEDS_extract, a text equal to its number is left out."""
    text = str(row["value"])
    try:
        return {"numeric_value": float(text)}
    except ValueError:
        return {"numeric_value": row.get("valuenum"), "text_value": text}
