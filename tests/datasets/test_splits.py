"""Splits by subject."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.splits import read_subject_lists, read_subjects, split_of, split_subjects

SUBJECTS = range(10_000_000, 10_020_000)
IDS = st.integers(0, 10**9)
LISTS = st.frozensets(st.integers(0, 12), max_size=8)


def test_shares_are_a_fifth_and_a_tenth_of_the_rest() -> None:
    splits = split_subjects(SUBJECTS)
    assert splits.count("test") / len(splits) == pytest.approx(0.2, abs=0.01)
    assert splits.count("val") / len(splits) == pytest.approx(0.08, abs=0.01)


def test_a_subjects_split_depends_on_nothing_else() -> None:
    assert split_subjects(SUBJECTS)[500] == split_subjects([SUBJECTS[500]])[0] == split_of(SUBJECTS[500])


def test_text_and_integer_ids_have_one_split() -> None:
    assert split_subjects(map(str, SUBJECTS)) == split_subjects(SUBJECTS)
    lists = frozenset({1, 2}), frozenset({3})
    assert split_subjects(["1", "2", "3", "4"], *lists) == split_subjects([1, 2, 3, 4], *lists)


def test_published_lists_are_followed(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("1,1\n2,0\n3,0\n")
    (tmp_path / "val.csv").write_text("2,1\n3,0\n")
    lists = [read_subjects(tmp_path / name) for name in ("test.csv", "val.csv")]
    assert split_subjects([1, 2, 3], *lists) == ["test", "val", "train"]


@pytest.mark.parametrize("line", ["subject_id,split", "12", "12,2", "a,1"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "test.csv").write_text(f"1,1\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_subjects(tmp_path / "test.csv")


def test_one_list_or_none_is_read(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("1,1\n")
    (tmp_path / "val.csv").write_text("2,1\n")
    lists = read_subject_lists(tmp_path / "test.csv", tmp_path / "val.csv")
    assert lists == (frozenset({1}), frozenset({2})) and read_subject_lists(None, None) == (None, None)
    with pytest.raises(ValueError, match="must be given together"):
        read_subject_lists(tmp_path / "test.csv", None)
    with pytest.raises(ValueError, match="in both lists"):
        read_subject_lists(tmp_path / "test.csv", tmp_path / "test.csv")


def test_lists_that_overlap_or_come_alone_are_errors() -> None:
    with pytest.raises(ValueError, match="in both lists"):
        split_subjects([1], frozenset({1}), frozenset({1}))
    with pytest.raises(ValueError, match="must be given together"):
        split_subjects([1], frozenset({1}), None)


@given(st.lists(IDS, unique=True), st.lists(IDS), st.randoms())
def test_neither_the_order_of_subjects_nor_other_subjects_change_a_split(
    subjects: list[int], others: list[int], random: Random
) -> None:
    alone = dict(zip(subjects, split_subjects(subjects), strict=True))
    everyone = [*subjects, *others]
    random.shuffle(everyone)
    together = dict(zip(everyone, split_subjects(everyone), strict=True))
    assert alone == {subject: together[subject] for subject in subjects}
    assert set(together.values()) <= {"train", "val", "test"}


@given(st.lists(st.integers(0, 12)), LISTS, LISTS)
def test_lists_give_each_subject_one_split_or_are_refused(
    subjects: list[int], test: frozenset[int], val: frozenset[int]
) -> None:
    if test & val:
        with pytest.raises(ValueError, match=rf"^{len(test & val)} subjects .*\(first: {min(test & val)}\)"):
            split_subjects(subjects, test, val)
        return
    for subject, split in zip(subjects, split_subjects(subjects, test, val), strict=True):
        assert (subject in test, subject in val) == (split == "test", split == "val")


@given(
    st.dictionaries(IDS, st.booleans()), st.sampled_from(["\n", "\r\n", "\n\n"]), st.sampled_from(["", " "])
)
def test_a_list_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict[int, bool], end: str, space: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "subjects.csv"
    path.write_bytes("".join(f"{s},{space}{int(held)}{end}" for s, held in chosen.items()).encode())
    assert read_subjects(path) == {subject for subject, held in chosen.items() if held}
