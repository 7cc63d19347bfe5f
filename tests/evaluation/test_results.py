"""Result files stay whole whoever writes, and predictions say what was predicted."""

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


def add_run(folder: Path, seed: int, value: float, **told: object) -> None:
    row = {"run": f"run{seed}", "protocol": "lineareval", "fusion": "ehr", "objective": "simclr", "epoch": 5}
    row |= {"checkpoint": "runs/simclr/a.ckpt", "split": "test", "seed": seed, "label": "macro", "n": 9}
    row |= {"metric": "auroc", "value": value, "low": value - 0.1, "high": value + 0.1}
    results.append(folder / "phenotyping.csv", [row | {"started": f"2030-01-0{seed + 1}"} | told])


def test_a_table_sums_up_the_seeds_of_equal_runs(tmp_path: Path) -> None:
    for seed, value in enumerate((0.7, 0.8, 0.75)):
        add_run(tmp_path, seed, value)
    add_run(tmp_path, 0, 0.1, started="2029-01-01")  # the same run, before it was repeated
    add_run(tmp_path, 0, 0.6, objective="random", run="other")
    add_run(tmp_path, 0, 0.3, metric="auprc")
    add_run(tmp_path, 0, 0.3, label="Shock")
    add_run(tmp_path, 0, 0.3, split="val")
    add_run(tmp_path, 8, 0.2, checkpoint="runs/run2/best.ckpt", run="run2-eval")  # run2 again
    config = results.TableConfig("phenotyping", (tmp_path,), "auroc", format="csv")
    (tmp_path / "table.csv").write_text(results.seed_table(config))
    table = pd.read_csv(tmp_path / "table.csv").set_index("objective")
    simclr = table.loc["simclr"]
    assert simclr["seeds"] == 3 and simclr["mean"] == pytest.approx(0.75)
    assert simclr["sd"] == pytest.approx(0.05)
    half = 4.303 * 0.05 / 3**0.5  # Student's t of 2 degrees of freedom
    assert tuple(simclr[["seeds_low", "seeds_high"]]) == pytest.approx((0.75 - half, 0.75 + half))
    assert tuple(simclr[["low", "high"]]) == pytest.approx((0.65, 0.85))
    assert table.loc["random", "seeds"] == 1 and table.loc["random"][["sd", "seeds_low"]].isna().all()
    assert len(table) == 2


def test_a_run_that_a_later_one_hides_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(tmp_path, 0, 0.7, run="first")
    add_run(tmp_path, 0, 0.8, run="second", started="2031-01-01")
    add_run(tmp_path, 1, 0.9, run="third")
    results.print_table(results.TableConfig("phenotyping", (tmp_path,)))
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "left out: first, as second is later and has the same protocol, fusion, objective and seed"
    ]
    assert said.out.splitlines()[1].split()[4:6] == ["2", "0.8500"]


def test_a_table_can_be_pasted_into_a_paper(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.75)
    text, markdown, latex = (
        results.seed_table(results.TableConfig("phenotyping", (tmp_path,), format=name)).splitlines()
        for name in ("text", "markdown", "latex")
    )
    assert text[0].split()[:4] == ["protocol", "fusion", "objective", "metric"] and len(text) == 2
    assert markdown[1] == "|" + " --- |" * 11
    assert markdown[2] == "| lineareval | ehr | simclr | auroc | 1 | 0.7500 |  |  |  | 0.6500 | 0.8500 |"
    assert latex[0] == r"\begin{tabular}{llllrrrrrrr}" and latex[2].count("&") == latex[4].count("&") == 10
    assert r"seeds\_low" in latex[2] and latex[4].endswith(r"0.8500 \\")


def test_seeds_may_lie_in_a_folder_each(tmp_path: Path) -> None:
    folders = tuple(tmp_path / f"seed{seed}" for seed in range(3))
    for seed, folder in enumerate(folders):
        add_run(folder, seed, 0.7 + seed / 100, run="the-same-name")
    (row,) = results.seed_table(results.TableConfig("phenotyping", folders)).splitlines()[1:]
    assert row.split()[4:7] == ["3", "0.7100", "0.0100"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"task": "radiology"}, "is missing"), ({"metric": "kappa"}, "--metric kappa, but of auroc")],
)
def test_a_table_of_nothing_is_refused(tmp_path: Path, asked: dict[str, str], message: str) -> None:
    add_run(tmp_path, 0, 0.75)
    with pytest.raises(ValueError, match=message):
        results.seed_table(results.TableConfig(**{"task": "phenotyping", "results_dir": (tmp_path,)} | asked))


def test_the_command_line_knows_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, 0, 0.75)
    flags = ["table", "--task", "phenotyping", "--results_dir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["results", *flags])
    results.main()
    assert "0.7500" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["results", "tabel"])
    with pytest.raises(SystemExit, match="2"):
        results.main()
    assert "say one of table, compare" in capsys.readouterr().err
