"""Splits by subject."""

import gzip
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.raw.subjects import read_subject_lists, read_subjects
from datasets.splits import split_of, split_subjects

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
    lists = [read_subjects(tmp_path / f"{split}.csv", split) for split in ("test", "val")]
    assert split_subjects([1, 2, 3], *lists) == ["test", "val", "train"]


SPLIT_TABLE = "dicom_id,study_id,subject_id,split\na,5,1,test\nb,5,1,test\nc,6,2,validate\nd,7,3,train\n"


@pytest.mark.parametrize(
    "content",
    [
        SPLIT_TABLE,
        SPLIT_TABLE.upper(),
        SPLIT_TABLE.replace(",1,", ",1.0,").replace("validate", '"val"'),
        SPLIT_TABLE.replace("\n", "\r\n"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_the_split_table_of_mimic_cxr_is_a_list_of_subjects(tmp_path: Path, content: str, gz: bool) -> None:
    path = tmp_path / f"mimic-cxr-2.0.0-split.csv{'.gz' if gz else ''}"
    path.write_bytes(gzip.compress(content.encode()) if gz else content.encode())
    lists = [read_subjects(path, split) for split in ("test", "val")]
    assert split_subjects([1, 2, 3, 4], *lists) == ["test", "val", "train", "train"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("e,8,4,testing", "1 rows have no subject, or a split other than .*subject 4"),
        ("e,8,,test", "1 rows have no subject"),
        ("e,8,4,", "1 rows have no subject, or a split"),
        ("e,8,2,test", r"1 subjects are in two splits \(first: 2\)"),
        ("e,8,3,test", r"1 subjects are in two splits \(first: 3\)"),
        ("e,8,x,test", "line 6: subject_id is not a 64-bit integer"),
    ],
)
def test_a_split_table_of_another_kind_is_refused(tmp_path: Path, row: str, fault: str) -> None:
    path = tmp_path / "mimic-cxr-2.0.0-split.csv"
    path.write_text(f"{SPLIT_TABLE}{row}\n")
    with pytest.raises(ValueError, match=rf"split\.csv: .*{fault}"):
        read_subjects(path, "test")


@pytest.mark.parametrize("line", ["subject_id,split", "12", "12,2", "a,1"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "test.csv").write_text(f"1,1\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_subjects(tmp_path / "test.csv", "test")


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
    assert read_subjects(path, "test") == {subject for subject, held in chosen.items() if held}
