"""Small raw MIMIC folders for tests, written row by row."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

COLUMNS = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,discharge_location,race,"
    "hospital_expire_flag",
    "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
    "hosp/labevents": "labevent_id,subject_id,hadm_id,itemid,charttime,storetime,value,valuenum",
    "icu/icustays": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "icu/chartevents": "subject_id,hadm_id,stay_id,charttime,itemid,value,valuenum",
}
FINDINGS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
CXR_COLUMNS = {
    "mimic-cxr-2.0.0-metadata": "dicom_id,subject_id,study_id,ViewPosition,StudyDate,StudyTime",
    "mimic-cxr-2.0.0-chexpert": f"subject_id,study_id,{FINDINGS}",
}
Rows = Sequence[Mapping[str, object]]

INTIME = "2150-01-01 00:00:00"


def patient(subject: int = 1, **changes: object) -> dict[str, object]:
    """An adult."""
    return {"subject_id": subject, "gender": "F", "anchor_age": 60, "anchor_year": 2150} | changes


def admission(subject: int = 1, hadm: int = 11, **changes: object) -> dict[str, object]:
    """An admission of nine days that ends alive."""
    times = {"admittime": "2149-12-31 00:00:00", "dischtime": "2150-01-09 00:00:00"}
    return {"subject_id": subject, "hadm_id": hadm, "race": "WHITE"} | times | changes


def stay(
    subject: int = 1, hadm: int = 11, stay_id: int = 111, days: float = 3.0, **changes: object
) -> dict[str, object]:
    """A stay in one unit from the first of January 2150."""
    hours = round(days * 24)
    out = f"2150-01-{1 + hours // 24:02d} {hours % 24:02d}:00:00"
    units = {"first_careunit": "MICU", "last_careunit": "MICU"}
    ids = {"subject_id": subject, "hadm_id": hadm, "stay_id": stay_id}
    return ids | {"intime": INTIME, "outtime": out, "los": days} | units | changes


def chart(
    itemid: int, value: object, time: str = "2150-01-01 01:00:00", **changes: object
) -> dict[str, object]:
    """A charted value of the first stay."""
    ids = {"subject_id": 1, "hadm_id": 11, "stay_id": 111}
    return ids | {"charttime": time, "itemid": itemid, "value": value} | changes


def lab(
    itemid: int, value: object, time: str = "2150-01-01 01:00:00", **changes: object
) -> dict[str, object]:
    """A laboratory value of the first admission."""
    return {"subject_id": 1, "hadm_id": 11, "charttime": time, "itemid": itemid, "value": value} | changes


def write_mimic_iv(folder: Path, gz: bool = True, **tables: Rows) -> Path:
    """Write a MIMIC-IV folder; a table not given has the one adult, admission and stay, or is empty."""
    default = {"patients": [patient()], "admissions": [admission()], "icustays": [stay()]}
    for file, header in COLUMNS.items():
        name = file.split("/")[1]
        rows = tables.get(name, default.get(name, []))
        write_table(folder / f"{file}.csv{'.gz' if gz else ''}", header.split(","), rows)
    return folder


def write_mimic_cxr(folder: Path, metadata: Rows, chexpert: Rows, size: int = 64) -> Path:
    """Write a MIMIC-CXR-JPG folder with a grey JPEG for each row of the metadata."""
    for (name, header), rows in zip(CXR_COLUMNS.items(), (metadata, chexpert), strict=True):
        write_table(folder / f"{name}.csv.gz", header.split(","), rows)
    for number, row in enumerate(metadata):
        subject = f"p{row['subject_id']}"
        path = folder / "files" / subject[:3] / subject / f"s{row['study_id']}" / f"{row['dicom_id']}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (size, size), 50 + number).save(path)
    return folder


def write_table(path: Path, header: Sequence[str], rows: Rows) -> None:
    """Write a table; cells that a row does not have are empty, and other cells of it are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
