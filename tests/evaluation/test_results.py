"""Result files stay whole whoever writes, and are read as they were written."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation import results
from tests.training.toy import room_for


def write_many(path: Path, writer: int) -> None:
    for i in range(20):
        results.append(path, [{"run": f"w{writer}", "label": f"{i}, {k}", "value": i / 3} for k in range(5)])


def test_many_writers_make_one_header_and_whole_lines(tmp_path: Path) -> None:
    path, spawn = tmp_path / "new" / "x.csv", multiprocessing.get_context("fork")
    writers = [spawn.Process(target=write_many, args=(path, writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    table = pd.read_csv(path)
    assert tuple(table.columns) == results.COLUMNS
    assert table.groupby("run").size().to_dict() == {f"w{writer}": 100 for writer in range(4)}
    assert set(table.value) == {i / 3 for i in range(20)}


def test_that_rows_can_be_appended_is_known_before_there_are_any(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.csv"
    results.append(path, ())
    assert path.parent.is_dir() and not list(path.parent.iterdir())
    path.write_text("another,table\n")
    with pytest.raises(ValueError, match=r"its columns are not run, .*; choose another --results_dir"):
        results.append(path, ())
    with pytest.raises(ValueError, match=r"new is no file; choose another --results_dir"):
        results.append(path.parent, ())
    with pytest.raises(OSError, match=r"cannot write to \S*x.csv .*; give another folder"):
        results.append(path / "y.csv", ())


def test_a_torn_line_is_cut_and_whole_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    results.append(path, [{"run": "a", "label": "long " * 2000}])
    kept = path.read_bytes()
    for torn in (b"b,phenotyping,sup", b"x" * 10000):
        path.write_bytes(kept + torn)
        results.append(path, [{"run": "c"}])
        assert path.read_bytes() == kept + b"c" + b"," * (len(results.COLUMNS) - 1) + b"\n"


def test_rows_that_a_killed_run_wrote_are_not_doubled_when_it_reports_again(tmp_path: Path) -> None:
    path, row = tmp_path / "x.csv", {"run": "a, b", "started": "2030", "value": 1 / 3, "seconds": 4.5}
    rows = [row | {"label": name} for name in ("x", "y", "z")]
    results.append(path, rows[:2])  # an older version could die within a run's rows
    results.append(path, [row | {"seconds": 9.0, "commit": "c"} for row in rows])
    assert pd.read_csv(path).label.tolist() == ["x", "y", "z"]
    for other in ({"started": "2031"}, {"value": 0.5}):  # a run of the same name, or a longer one
        results.append(path, [rows[0] | other])
    assert len(pd.read_csv(path)) == 5


def test_a_link_to_a_results_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    path = tmp_path / "x.csv"
    path.symlink_to(tmp_path / "shared" / "y.csv")
    results.append(path, [{"run": "a"}])
    assert path.is_symlink() and pd.read_csv(tmp_path / "shared" / "y.csv").run.tolist() == ["a"]


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("run,ta")
    results.append(path, [{"run": "c"}])
    assert pd.read_csv(path).run.tolist() == ["c"]


def test_a_file_may_have_other_columns_and_is_read_without_its_torn_line(tmp_path: Path) -> None:
    path, columns = tmp_path / "x.csv", ("epoch", "auroc[fluid, other]")
    for epoch in (3, 1):
        results.append_rows(path, columns, [{"epoch": epoch, columns[1]: epoch / 7}], "choose another name")
    whole = path.read_bytes()
    path.write_bytes(whole + b"2,0.5")
    table = results.read_rows(path)
    assert tuple(table) == columns and table.to_numpy().tolist() == [[3, 3 / 7], [1, 1 / 7]]
    with pytest.raises(ValueError, match=r"its columns are not epoch, loss; choose another name"):
        results.append_rows(path, ("epoch", "loss"), [{"epoch": 2}], "choose another name")
    path.write_bytes(b"epo")
    assert results.read_rows(path).empty


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    results.append(path, [{"run": "a"}])
    before = path.read_bytes()
    with room_for(1000), pytest.raises(OSError, match=r"no space left to write .*x\.csv"):
        results.append(path, [{"run": "b" * 100} for _ in range(20)])
    assert path.read_bytes() == before


def test_columns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column auroc; they have run, mode, task"):
        results.append(tmp_path / "x.csv", [{"auroc": 1.0}])
    (tmp_path / "y.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"y\.csv: its columns are not run, mode, task"):
        results.append(tmp_path / "y.csv", [{"run": "a"}])
    assert (tmp_path / "y.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    "text", ["001", "46520e475121", "1e5", "NA", "nan", "None", "True", "0x1F", "1_000", ""]
)
def test_text_columns_stay_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    results.append(path, [dict.fromkeys(results.TEXT_COLUMNS, text)])
    (row,) = results.read_rows(path).to_dict("records")
    assert [row[name] for name in results.TEXT_COLUMNS] == [text] * len(results.TEXT_COLUMNS)
    assert all(np.isnan(row[name]) for name in results.NUMBER_COLUMNS)


def test_numbers_are_read_to_the_last_digit(tmp_path: Path) -> None:
    values = [*np.random.default_rng(0).random(3000).tolist(), float("nan")]
    results.append(tmp_path / "x.csv", [{"label": str(i), "value": value} for i, value in enumerate(values)])
    np.testing.assert_array_equal(results.read_rows(tmp_path / "x.csv")["value"], values)


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    results.append(tmp_path / "x.csv", [{"label": "a", "value": 0.5}, {"label": "b", "value": "0,7"}])
    with pytest.raises(ValueError, match=r"x\.csv: column value must be a number, not '0,7'"):
        results.read_rows(tmp_path / "x.csv")


def test_the_calibration_error_of_an_older_version_is_called_plugin(tmp_path: Path) -> None:
    path = tmp_path / "task.csv"
    common = {"split": "test", "label": "macro", "value": 0.03, "low": 0.04, "high": 0.05}
    for run, names in (("old", ("auroc", "ece", "ece_gap")), ("new", ("auroc", "ece", "ece_plugin"))):
        results.append(path, [{**common, "run": run, "metric": name} for name in names])
    rows = results.read_results(path)
    old, new = (rows[rows["run"] == run] for run in ("old", "new"))
    assert old["metric"].tolist() == ["auroc", "ece_plugin", "ece_plugin_gap"]
    assert old["low"].isna().tolist() == [False, True, True] and old["value"].notna().all()
    assert new["metric"].tolist() == ["auroc", "ece", "ece_plugin"] and new["low"].notna().all()
