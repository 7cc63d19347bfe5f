"""Result files stay whole whoever writes, and predictions say what was predicted."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.utils.toy import room_for
from utils import results


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


def test_a_torn_line_is_cut_and_whole_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    results.append(path, [{"run": "a", "label": "long " * 2000}])
    kept = path.read_bytes()
    for torn in (b"b,phenotyping,sup", b"x" * 10000):
        path.write_bytes(kept + torn)
        results.append(path, [{"run": "c"}])
        assert path.read_bytes() == kept + b"c" + b"," * (len(results.COLUMNS) - 1) + b"\n"


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
    with room_for(1000), pytest.raises(OSError, match=r"no space left to write .*nothing was changed"):
        results.append(path, [{"run": "b" * 100} for _ in range(20)])
    assert path.read_bytes() == before


def test_columns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column auroc; they have run, task"):
        results.append(tmp_path / "x.csv", [{"auroc": 1.0}])
    (tmp_path / "y.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"y\.csv: its columns are not run, task"):
        results.append(tmp_path / "y.csv", [{"run": "a"}])
    assert (tmp_path / "y.csv").read_text() == "a,b\n1,2\n"


def test_predictions_hold_one_line_a_sample_and_label(tmp_path: Path) -> None:
    truth = np.array([[0, 1], [1, np.nan]], np.float32)
    probability = np.array([[0.25, 0.5], [0.125, 0.75]], np.float32)
    path = tmp_path / "p.csv"
    results.write_predictions(
        path, np.array([7, 8]), np.array([48.0, 24.5]), ["a", "b, c"], truth, probability
    )
    assert path.read_text().splitlines() == [
        "stay_id,end_hours,label,truth,probability",
        "7,48.0,a,0,0.25",
        '7,48.0,"b, c",1,0.5',
        "8,24.5,a,1,0.125",
        '8,24.5,"b, c",,0.75',
    ]


def test_predictions_of_bins_hold_one_line_a_bin(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    probability = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    truth = np.array([[2], [np.nan]])
    results.write_predictions(path, np.array([7, 8]), np.array([5.0, 6.0]), ["los"], truth, probability)
    table = pd.read_csv(path)
    assert table.label.tolist() == ["los[0]", "los[1]", "los[2]"] * 2
    assert table.truth.tolist()[:3] == [0, 0, 1] and table.truth[3:].isna().all()
    assert table.probability.tolist() == probability.ravel().tolist()


def test_predictions_of_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must both be \(2, 1\)"):
        results.write_predictions(
            tmp_path / "p.csv", np.arange(2), np.ones(2), ["a"], np.zeros((2, 2)), np.zeros((2, 2))
        )
