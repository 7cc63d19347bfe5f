"""Splits by subject: train, val or test, the same for every task and for both modalities."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

TEST_FRACTION = 0.2
VAL_FRACTION = 0.1  # of the subjects outside the test split

SubjectLists = tuple[frozenset[int] | None, frozenset[int] | None]  # test, val


def uniform(subject_id: int, purpose: str) -> float:
    """Return a number from 0 to 1 for a subject, by a hash of its id: another one for another purpose."""
    digest = hashlib.blake2b(f"{purpose}:{subject_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(subject_id: int | str) -> str:
    """Return the split of a subject by a hash of its id, whatever other subjects are in the data.

    >>> split_of(10000001) == split_of("10000001")
    True
    """
    subject = int(subject_id)
    return _test_or_other(subject, uniform(subject, "test") < TEST_FRACTION)


def check_subject_lists(test: frozenset[int] | None, val: frozenset[int] | None) -> None:
    """Raise ValueError unless both lists are given, or none, and no subject is in both."""
    if (test is None) != (val is None):
        raise ValueError("--test_subjects and --val_subjects must be given together: give both lists or none")
    if both := (test or frozenset()) & (val or frozenset()):
        raise ValueError(
            f"{len(both)} subjects are in both lists (first: {min(both)}), but a subject has one split; "
            "remove each from one list"
        )


def split_subjects(
    subjects: Iterable[int | str], test: frozenset[int] | None = None, val: frozenset[int] | None = None
) -> list[str]:
    """Return the split of each subject, by a hash or by the published lists of test and val subjects."""
    check_subject_lists(test, val)
    if test is None or val is None:
        return [split_of(subject) for subject in subjects]
    return ["test" if int(s) in test else "val" if int(s) in val else "train" for s in subjects]


def split_by_fold(subjects: Iterable[int | str], fold: int, folds: int) -> list[str]:
    """Return the split of each subject if fold `fold` of `folds` (from 1 on) is the test split.

    A hash of its id puts a subject into a fold; another one puts a tenth of the other folds into val.

    >>> [split_by_fold([10000001], fold, 3) for fold in (1, 2, 3)]
    [['train'], ['test'], ['train']]
    """
    purpose = f"fold of {folds}"
    held_out = [int(uniform(int(subject), purpose) * folds) == fold - 1 for subject in subjects]
    return [_test_or_other(int(s), is_test) for s, is_test in zip(subjects, held_out, strict=True)]


def split_by_year(subjects: Iterable[int | str], years: Iterable[int], first_test_year: int) -> list[str]:
    """Return the split of each subject: test from a year on; of those before, a tenth are val by a hash."""
    return [_test_or_other(int(s), year >= first_test_year) for s, year in zip(subjects, years, strict=True)]


def _test_or_other(subject: int, is_test: bool) -> str:
    if is_test:
        return "test"
    return "val" if uniform(subject, "val") < VAL_FRACTION else "train"


def check_disjoint(subjects: np.ndarray, splits: np.ndarray, path: Path) -> None:
    """Check that every subject is in one split, given one row per stay; errors name `path`."""
    pairs = set(zip(subjects.tolist(), splits.tolist(), strict=True))
    shared = [subject for subject, count in Counter(subject for subject, _ in pairs).items() if count > 1]
    if shared:
        raise ValueError(
            f"{path}: {len(shared)} subjects are in two splits (first: {min(shared)}), but a subject has "
            "one split; extract again"
        )
