"""A ratio that fell is reported, and nothing else is."""

from pathlib import Path

import pytest

from benchmarks.compare import CompareConfig, compare, main
from benchmarks.record import COLUMNS, Figure
from evaluation.results import append_rows


def rows(path: Path, *figures: Figure, benchmark: str = "images") -> Path:
    """Append rows of these figures to a file; return its path."""
    append_rows(path, COLUMNS, [figure.cells() | {"benchmark": benchmark} for figure in figures], "")
    return path


def exit_status(tmp_path: Path, old: Figure, new: Figure) -> int:
    """Exit status of the comparison of one figure with another."""
    files = (rows(tmp_path / name, figure) for name, figure in (("old.csv", old), ("new.csv", new)))
    with pytest.raises(SystemExit) as left:
        main(CompareConfig(*files))
    return left.value.code


@pytest.mark.parametrize(
    ("unit", "ours", "status"),
    [("s", 1.09, 0), ("s", 1.12, 1), ("images/s", 91.0, 0), ("images/s", 89.0, 1), ("images/s", 500.0, 0)],
)
def test_a_fall_of_over_a_tenth_is_reported_in_any_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unit: str, ours: float, status: int
) -> None:
    before = Figure("resize", unit, 1.0 if unit == "s" else 100.0, "published", 10.0)
    assert exit_status(tmp_path, before, Figure("resize", unit, ours, "published", 10.0)) == status
    assert f"{status} of 1 ratios that both files have fell" in capsys.readouterr().out


def test_the_newest_row_of_a_figure_counts(tmp_path: Path) -> None:
    slow, fast = (Figure("resize", "s", ours, "published", 10.0) for ours in (5.0, 1.0))
    old = rows(rows(tmp_path / "old.csv", fast), slow)
    new = rows(tmp_path / "new.csv", slow)
    assert [change.change for change in compare(old, new)] == [0.0]
    rows(new, Figure("resize", "s", 6.0, "published", 10.0))
    assert [change.fell for change in compare(old, new)] == [True]


def test_figures_are_identified_by_benchmark_work_and_reference(tmp_path: Path) -> None:
    figure = Figure("resize", "s", 1.0, "published", 10.0)
    old = rows(tmp_path / "old.csv", figure)
    new = rows(tmp_path / "new.csv", Figure("resize", "s", 1.0, "zcat", 1.0), Figure("x", "s", 1, "zcat", 1))
    rows(new, figure, benchmark="batches")
    assert [(change.old, change.new) for change in compare(old, new)] == [
        (10.0, None),
        (None, 1.0),
        (None, 1.0),
        (None, 10.0),
    ]


def test_what_was_not_measured_is_no_fall(tmp_path: Path) -> None:
    known, unknown = (Figure("step", "images/s", ours, "resident", ours) for ours in (9.0, None))
    for number, (old, new) in enumerate([(known, unknown), (unknown, known), (unknown, unknown)]):
        assert exit_status(tmp_path / str(number), old, new) == 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no column benchmark, work, against, ratio"):
        compare(other, other)
    with pytest.raises(ValueError, match="no such file"):
        compare(tmp_path / "none.csv", other)
