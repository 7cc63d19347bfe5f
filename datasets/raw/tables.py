"""Raw tables: the files of each in a release, and the columns that are read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from datasets.schema import FINDINGS

MIMIC_IV = "MIMIC-IV 1.0, 2.x and 3.x"
MIMIC_CXR = "MIMIC-CXR-JPG 2.0.0 and 2.1.0"
DOWNLOAD_AGAIN = "download it again"
SUFFIXES = (".csv.gz", ".csv", ".parquet")


@dataclass(frozen=True)
class RawTable:
    """File name of a table, its folders, the releases that have it, and the columns that are read.

    `columns` maps a column to its type. `aliases` maps a column to the name that it has in some releases,
    `renamed` to the column that is read in its place.
    `optional` columns are null where the file does not have them.
    """

    pattern: str
    folders: tuple[str, ...]
    releases: str
    columns: dict[str, type[pl.DataType]]
    aliases: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()

    def names_in(self, header: Sequence[str]) -> dict[str, str]:
        """Map each column that is read to its name in a file with this header, which may be in capitals."""
        names = {name: _in_header(self.renamed.get(name, name), header) for name in self.columns}
        for name, alias in self.aliases.items():
            if names[name] not in header:
                names[name] = _in_header(alias, header)
        return {name: raw for name, raw in names.items() if raw in header or name not in self.optional}


def _in_header(column: str, header: Sequence[str]) -> str:
    """Return the column of a header that is this one but for capitals and blanks, else the column."""
    if column in header:
        return column
    return next((raw for raw in header if raw.strip().lower() == column.lower()), column)


INT, FLOAT, TEXT, TIME = pl.Int64, pl.Float64, pl.String, pl.Datetime
TABLES = {
    "patients": RawTable("patients", ("hosp", "core"), MIMIC_IV, {
        "subject_id": INT, "gender": TEXT, "anchor_age": INT, "anchor_year": INT, "dod": TIME,
        "anchor_year_group": TEXT,
    }, optional=("anchor_year_group",)),
    "admissions": RawTable("admissions", ("hosp", "core"), MIMIC_IV, {
        "subject_id": INT, "hadm_id": INT, "admittime": TIME, "dischtime": TIME, "deathtime": TIME,
        "race": TEXT, "hospital_expire_flag": INT, "discharge_location": TEXT, "admission_type": TEXT,
    }, aliases={"race": "ethnicity"},
        optional=("hospital_expire_flag", "discharge_location", "admission_type")),
    "diagnoses_icd": RawTable("diagnoses_icd", ("hosp",), MIMIC_IV, {
        "subject_id": INT, "hadm_id": INT, "seq_num": INT, "icd_code": TEXT, "icd_version": INT,
    }, optional=("seq_num",)),
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

ITEM_TABLES = {
    "chart": RawTable("d_items", ("icu",), MIMIC_IV, {"itemid": INT}),
    "lab": RawTable("d_labitems", ("hosp",), MIMIC_IV, {"itemid": INT}),
}  # which describe the items of a source; a release may lack them


def event_table(name: str, lab_time: str) -> RawTable:
    """Return a raw table; with the lab_time `storetime`, this is the time of a laboratory value."""
    table = TABLES[name]
    is_renamed = name == "labevents" and lab_time != "charttime"
    return replace(table, renamed={"charttime": lab_time}) if is_renamed else table


def find_files(root: Path, name: str) -> list[Path]:
    """Return the files of a raw table below `root`: one, or its shards in the order of their numbers.

    A file is `.csv.gz`, `.csv` or `.parquet`, in any of the table's folders. Shards are numbered files beside
    each other (`chartevents-0000.csv.gz`) or in a folder of the table's name (`chartevents/part-0.parquet`).

    Raises:
        ValueError: There is no such file, more than one, or a shard is missing.
    """
    table = TABLES[name]
    shard = _shard_pattern(table.pattern)
    sets = [files for folder in table.folders for files in _file_sets(root / folder, table.pattern, shard)]
    if not sets:
        names = [f"{folder}/{table.pattern}{end}" for folder in table.folders for end in SUFFIXES]
        tried = ", ".join(name.removeprefix("./") for name in names)
        raise ValueError(
            f"{root}: table {name} not found; looked for {tried} (as in {table.releases}), or shards such as "
            f"{table.pattern}-0000.csv.gz; check the folder, or download the table from PhysioNet"
        )
    if len(sets) > 1:
        names = [str(paths[0]) + f" and {len(paths) - 1} more" * (len(paths) > 1) for paths in sets]
        raise ValueError(f"{root}: table {name} has {len(sets)} files: {', '.join(names)}; keep one")
    return _in_order(sets[0], shard)


def _shard_pattern(table: str) -> re.Pattern[str]:
    """Return what the name of a shard matches, beside the others or in a folder of the table's name."""
    name = re.escape(table).replace(r"\*", ".*")
    number = r"[-_.]?(part|data|shard)?[-_.]?(?P<number>\d+)([-_.]of[-_.](?P<count>\d+))?"
    return re.compile(rf"(?P<table>{name})?{number}(?P<rest>[-_.].*)?", re.IGNORECASE)


def _file_sets(folder: Path, table: str, shard: re.Pattern[str]) -> list[list[Path]]:
    """Return what a folder holds of a table: whole files, and sets of shards."""
    name = re.compile(re.escape(table).replace(r"\*", ".*"), re.IGNORECASE)
    sets: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, end = _split_suffix(path)
        if name.fullmatch(stem) and path.is_dir():
            for inside in path.iterdir():
                if inside.name[0] not in "._" and _split_suffix(inside)[1]:
                    sets.setdefault(f"{path}/{_split_suffix(inside)[1]}", []).append(inside)
        elif name.fullmatch(stem) and end:
            sets[str(path)] = [path]
        elif end and (match := shard.fullmatch(stem)) and match["table"] and not match["rest"]:
            sets.setdefault(f"{match['table']}/{end}", []).append(path)
    return list(sets.values())


def _split_suffix(path: Path) -> tuple[str, str]:
    """Return a file's name without the suffix of a table, and the suffix; "" if it has none."""
    end = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(end)], end


def _in_order(paths: list[Path], shard: re.Pattern[str]) -> list[Path]:
    """Return shards in the order of their numbers, or else of their names.

    Raises:
        ValueError: A number is missing or repeated; Spark leaves some out, and writes _SUCCESS.
    """
    found = [match for path in paths if (match := shard.fullmatch(_split_suffix(path)[0]))]
    if len(found) < len(paths):
        return sorted(paths)
    numbers = [int(match["number"]) for match in found]
    first, count = min([*numbers, 1]), max(len(found), *(int(match["count"] or 0) for match in found))
    wrong = [n for n in range(first, first + count) if numbers.count(n) != 1]
    if wrong and not (paths[0].parent / "_SUCCESS").exists():
        raise ValueError(
            f"{paths[0]}: of the shards beside it, number {wrong[0]} is "
            f"{'there twice' if wrong[0] in numbers else 'missing'}; export the table again"
        )
    return [path for _, path in sorted(zip(numbers, paths, strict=True))]
