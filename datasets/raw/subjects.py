"""Lists of the subjects of a split: the published ones, or MIMIC-CXR's split table."""

from collections.abc import Set
from pathlib import Path

import polars as pl

from datasets.raw.integrity import open_bytes
from datasets.raw.reading import read_file
from datasets.raw.tables import MIMIC_CXR, RawTable
from datasets.splits import SubjectLists, check_subject_lists
from utils.log import logger

SPLIT_TABLE = RawTable("mimic-cxr-*-split", (".",), MIMIC_CXR, {"subject_id": pl.Int64, "split": pl.String})
SPLIT_NAMES = {"train": "train", "test": "test", **dict.fromkeys(("validate", "validation", "val"), "val")}


def read_subjects(path: Path, split: str) -> frozenset[int]:
    """Read the subjects of `test` or `val`.

    A file holds lines `subject_id,0|1` without a header, where 1 means included; or it is MIMIC-CXR's split
    table, with a line per image and columns `subject_id` and `split` (train, validate or test).

    Raises:
        ValueError: A line is neither, or a subject is in two splits.
    """
    with open_bytes(path) as file:
        content = file.read()
    if path.suffix == ".parquet" or b"split" in content.split(b"\n")[0].lower():
        return _read_split_table(path, split)
    subjects = set()
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        fields = [field.strip() for field in line.split(",")]
        if fields == [""]:
            continue
        if len(fields) != 2 or not fields[0].isdecimal() or fields[1] not in ("0", "1"):
            raise ValueError(
                f"{path}, line {number}: {line!r} is not `subject_id,0` or `subject_id,1`; fix the line"
            )
        if fields[1] == "1":
            subjects.add(int(fields[0]))
    return frozenset(subjects)


def read_subject_lists(test: Path | None, val: Path | None) -> SubjectLists:
    """Read the published lists of test and val subjects, if there are any.

    Raises:
        ValueError: One is missing, has a line of another kind, or shares a subject with the other.
    """
    lists = read_subjects(test, "test") if test else None, read_subjects(val, "val") if val else None
    check_subject_lists(*lists)
    return lists


def check_subjects_are_there(flag: str, path: Path, listed: Set[int], present: Set[int]) -> None:
    """Warn of listed subjects that are not in the release; ValueError if it has none of them.

    A list of nobody is what it says: an empty split.
    """
    found = len(listed & present)
    counted = f"{flag} {path}: {found} of {len(listed)} listed subjects have an ICU stay in the release"
    if listed and not found:
        raise ValueError(
            f"{counted}, so that their split would be empty; list the subject_id of icustays, with a 1 for "
            "those of the split"
        )
    if found < len(listed):
        logger.warning(f"{counted}; it does not have the others")


def _read_split_table(path: Path, split: str) -> frozenset[int]:
    table = read_file(path, SPLIT_TABLE).with_columns(pl.col("split").str.strip_chars().str.to_lowercase())
    unknown = table.filter(
        pl.col("subject_id").is_null() | ~pl.col("split").is_in(SPLIT_NAMES).fill_null(False)
    )
    if len(unknown):
        raise ValueError(
            f"{path}: {len(unknown)} rows have no subject, or a split other than train, validate and test "
            f"(first: subject {unknown['subject_id'][0]}); use MIMIC-CXR's file"
        )
    splits = table.select("subject_id", pl.col("split").replace(SPLIT_NAMES)).unique()
    shared = splits.filter(pl.col("subject_id").is_duplicated())["subject_id"]
    if len(shared):
        raise ValueError(
            f"{path}: {shared.n_unique()} subjects are in two splits (first: {min(shared.to_list())}), but a "
            "subject has one; use MIMIC-CXR's file"
        )
    return frozenset(splits.filter(pl.col("split") == split)["subject_id"])
