"""Raw tables: the file of each in a release, and the columns that are read."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from datasets.schema import FINDINGS

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
MIMIC_IV = "MIMIC-IV 1.0, 2.x and 3.x"
MIMIC_CXR = "MIMIC-CXR-JPG 2.0.0 and 2.1.0"
DOWNLOAD_AGAIN = "download it again"


@dataclass(frozen=True)
class RawTable:
    """File name of a table, its folders, the releases that have it, and the columns that are read.

    `columns` maps a column to its type; the file holds pl.Datetime columns as text. `aliases` maps a column
    to the name that it has in some releases.
    """

    pattern: str
    folders: tuple[str, ...]
    releases: str
    columns: dict[str, type[pl.DataType]]
    aliases: dict[str, str] = field(default_factory=dict)

    def names_in(self, header: Collection[str]) -> dict[str, str]:
        """Map each column that is read to its name in a file with this header."""
        return {name: name if name in header else self.aliases.get(name, name) for name in self.columns}


TABLES = {
    "patients": RawTable(
        "patients", ("hosp", "core"), MIMIC_IV,
        {
            "subject_id": pl.Int64, "gender": pl.String, "anchor_age": pl.Int64, "anchor_year": pl.Int64,
            "dod": pl.Datetime,
        },
    ),
    "admissions": RawTable(
        "admissions", ("hosp", "core"), MIMIC_IV,
        {
            "subject_id": pl.Int64, "hadm_id": pl.Int64, "admittime": pl.Datetime, "dischtime": pl.Datetime,
            "deathtime": pl.Datetime, "race": pl.String,
        },
        aliases={"race": "ethnicity"},
    ),
    "diagnoses_icd": RawTable(
        "diagnoses_icd", ("hosp",), MIMIC_IV,
        {"subject_id": pl.Int64, "hadm_id": pl.Int64, "icd_code": pl.String, "icd_version": pl.Int64},
    ),
    "icustays": RawTable(
        "icustays", ("icu",), MIMIC_IV,
        {
            "subject_id": pl.Int64, "hadm_id": pl.Int64, "stay_id": pl.Int64, "first_careunit": pl.String,
            "last_careunit": pl.String, "intime": pl.Datetime, "outtime": pl.Datetime, "los": pl.Float64,
        },
    ),
    "chartevents": RawTable(
        "chartevents", ("icu",), MIMIC_IV,
        {
            "hadm_id": pl.Int64, "stay_id": pl.Int64, "charttime": pl.Datetime, "itemid": pl.Int64,
            "value": pl.String,
        },
    ),
    "labevents": RawTable(
        "labevents", ("hosp",), MIMIC_IV,
        {"hadm_id": pl.Int64, "charttime": pl.Datetime, "itemid": pl.Int64, "value": pl.String},
    ),
    "metadata": RawTable(
        "mimic-cxr-*-metadata", (".",), MIMIC_CXR,
        {
            "dicom_id": pl.String, "subject_id": pl.Int64, "study_id": pl.Int64, "ViewPosition": pl.String,
            "StudyDate": pl.Int64, "StudyTime": pl.Float64,
        },
    ),
    "chexpert": RawTable(
        "mimic-cxr-*-chexpert", (".",), MIMIC_CXR,
        {"subject_id": pl.Int64, "study_id": pl.Int64, **dict.fromkeys(FINDINGS, pl.Float64)},
    ),
}  # fmt: skip


def find_table(root: Path, name: str) -> Path:
    """Return the path of a raw table below `root`, a `.csv.gz` or `.csv` file in any of its folders.

    Raises:
        ValueError: There is no such file, or more than one.
    """
    table = TABLES[name]
    patterns = [f"{folder}/{table.pattern}.csv{end}" for folder in table.folders for end in (".gz", "")]
    paths = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    if not paths:
        tried = ", ".join(pattern.removeprefix("./") for pattern in patterns)
        raise ValueError(
            f"{root}: table {name} not found; looked for {tried} (as in {table.releases}); check the folder, "
            "or download the table from PhysioNet"
        )
    if len(paths) > 1:
        raise ValueError(
            f"{root}: table {name} has {len(paths)} files: {', '.join(map(str, paths))}; keep one"
        )
    return paths[0]
