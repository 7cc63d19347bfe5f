"""The split of a subject: train, val or test, the same for every task and for both modalities."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

TEST_SHARE, VAL_SHARE = 0.2, 0.1


def _uniform(subject_id: int, purpose: str) -> float:
    digest = hashlib.blake2b(f"{purpose}:{subject_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(subject_id: int | str) -> str:
    """Split by a stable hash: 20 % of subjects test, 10 % of the rest validation, whatever else is in the
    data.

    >>> split_of(10000001) == split_of("10000001")
    True
    """
    subject = int(subject_id)
    if _uniform(subject, "test") < TEST_SHARE:
        return "test"
    return "val" if _uniform(subject, "val") < VAL_SHARE else "train"


def read_subjects(path: Path) -> frozenset[int]:
    """Subjects of a published list: lines `subject_id,0|1` without a header, where 1 means that the subject
    is in.

    Raises:
        ValueError: a line is not of that form.
    """
    chosen = set()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields = [field.strip() for field in line.split(",")]
        if fields == [""]:
            continue
        if len(fields) != 2 or not fields[0].isdecimal() or fields[1] not in ("0", "1"):
            raise ValueError(
                f"{path}, line {number}: {line!r} is not `subject_id,0` or `subject_id,1`; mend the line"
            )
        if fields[1] == "1":
            chosen.add(int(fields[0]))
    return frozenset(chosen)


def split_subjects(
    subjects: Iterable[int | str], test: frozenset[int] | None = None, val: frozenset[int] | None = None
) -> list[str]:
    """The split of each subject: by the hash, or by the lists where they are given.

    Raises:
        ValueError: a subject is in both lists, or only one list is given.
    """
    if test is None and val is None:
        return [split_of(subject) for subject in subjects]
    if test is None or val is None:
        raise ValueError("--test_subjects and --val_subjects go together: give both lists, or none")
    if both := test & val:
        raise ValueError(
            f"{len(both)} subjects are in both lists (first: {min(both)}): a subject has one split"
        )
    return ["test" if int(s) in test else "val" if int(s) in val else "train" for s in subjects]


def check_disjoint(subjects: pd.Series, splits: pd.Series, place: Path) -> None:
    """ValueError, beginning with `place`, if a subject is in two splits; a row a stay in both series.

    >>> check_disjoint(pd.Series([7, 7, 8]), pd.Series(["train", "test", "val"]), Path("store"))
    Traceback (most recent call last):
    ...
    ValueError: store: 1 subjects are in two splits (first: 7); a patient has one split: extract again
    """
    parts = pd.DataFrame({"subject": subjects, "split": splits}).drop_duplicates()["subject"]
    shared = parts[parts.duplicated()].unique()
    if len(shared):
        raise ValueError(
            f"{place}: {len(shared)} subjects are in two splits (first: {shared.min()}); "
            "a patient has one split: extract again"
        )
