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
    to the name that it has in some releases. `optional` columns are null where the file does not have them.
    """

    pattern: str
    folders: tuple[str, ...]
    releases: str
    columns: dict[str, type[pl.DataType]]
    aliases: dict[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()

    def names_in(self, header: Collection[str]) -> dict[str, str]:
        """Map each column that is read to its name in a file with this header."""
        names = {name: name if name in header else self.aliases.get(name, name) for name in self.columns}
        return {name: raw for name, raw in names.items() if raw in header or name not in self.optional}


INT, FLOAT, TEXT, TIME = pl.Int64, pl.Float64, pl.String, pl.Datetime
TABLES = {
    "patients": RawTable("patients", ("hosp", "core"), MIMIC_IV, {
        "subject_id": INT, "gender": TEXT, "anchor_age": INT, "anchor_year": INT, "dod": TIME,
    }),
    "admissions": RawTable("admissions", ("hosp", "core"), MIMIC_IV, {
        "subject_id": INT, "hadm_id": INT, "admittime": TIME, "dischtime": TIME, "deathtime": TIME,
        "race": TEXT, "hospital_expire_flag": INT, "discharge_location": TEXT,
    }, aliases={"race": "ethnicity"}, optional=("hospital_expire_flag", "discharge_location")),
    "diagnoses_icd": RawTable("diagnoses_icd", ("hosp",), MIMIC_IV, {
        "subject_id": INT, "hadm_id": INT, "icd_code": TEXT, "icd_version": INT,
    }),
    "icustays": RawTable("icustays", ("icu",), MIMIC_IV, {
        "subject_id": INT, "hadm_id": INT, "stay_id": INT, "first_careunit": TEXT, "last_careunit": TEXT,
        "intime": TIME, "outtime": TIME, "los": FLOAT,
    }),
    "chartevents": RawTable("chartevents", ("icu",), MIMIC_IV, {
        "hadm_id": INT, "stay_id": INT, "charttime": TIME, "itemid": INT, "value": TEXT, "valuenum": TEXT,
    }, optional=("valuenum",)),
    "labevents": RawTable("labevents", ("hosp",), MIMIC_IV, {
        "hadm_id": INT, "charttime": TIME, "itemid": INT, "value": TEXT, "valuenum": TEXT,
    }, optional=("valuenum",)),
    "metadata": RawTable("mimic-cxr-*-metadata", (".",), MIMIC_CXR, {
        "dicom_id": TEXT, "subject_id": INT, "study_id": INT, "ViewPosition": TEXT, "StudyDate": INT,
        "StudyTime": FLOAT,
    }),
    "chexpert": RawTable("mimic-cxr-*-chexpert", (".",), MIMIC_CXR, {
        "subject_id": INT, "study_id": INT, **dict.fromkeys(FINDINGS, FLOAT),
    }),
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
        files = ", ".join(map(str, paths))
        raise ValueError(f"{root}: table {name} has {len(paths)} files: {files}; keep one")
    return paths[0]
