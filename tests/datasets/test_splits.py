"""Splits by subject."""

from pathlib import Path

import pytest

from datasets.splits import read_subjects, split_of, split_subjects

SUBJECTS = range(10_000_000, 10_020_000)


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


def test_lists_that_overlap_or_lack_their_twin_are_errors() -> None:
    with pytest.raises(ValueError, match="in both lists"):
        split_subjects([1], frozenset({1}), frozenset({1}))
    with pytest.raises(ValueError, match="go together"):
        split_subjects([1], frozenset({1}), None)
