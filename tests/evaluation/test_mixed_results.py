"""In a folder with all kinds of results nothing is averaged that differs, or lost without a line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evaluation.paper import Paper, make_paper_table
from evaluation.results import COLUMNS, ENCODERS, NO_ENCODER, append, read_results
from evaluation.seeds import over_seeds, select_rows
from evaluation.tables import Table, make_table, summary
from tests.evaluation.result_rows import add_run


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two stores, two seeds, a throw-away run, evaluations, other learning rates, and rows of 0.2.0."""
    folder = tmp_path / "results"
    older = {"run": "older", "task": "phenotyping", "protocol": "lineareval", "fusion": "ehr", "n": 9}
    older |= {"objective": "simclr", "checkpoint": "runs/run0/best.ckpt", "split": "test", "seed": 0}
    older |= {"label": "macro", "metric": "auroc", "value": 0.15, "started": "2029-01-01"}
    header = [name for name in COLUMNS if name in older]
    folder.mkdir()
    pd.DataFrame([older])[header].to_csv(folder / "phenotyping.csv", index=False)
    for seed, value in ((0, 0.7), (1, 0.8)):
        add_run(folder, seed, value)
        add_run(folder, seed, value + 0.1, run=f"fast{seed}", settings={"optim.lr": 0.01}, classifier_hash="")
        add_run(folder, seed, value - 0.2, run=f"real{seed}", store="beef", data="real", n=7)
    add_run(folder, 0, 0.5, run="try", settings={"optim.epochs": 1}, started="2030-02-01")  # thrown away
    add_run(folder, 0, 0.71, run="run0", started="2030-01-09", classifier_hash="w9")  # run0 again
    evaluation = {"mode": "eval", "settings": {"evaluates": 1}, "checkpoint": "runs/run1/best.ckpt"}
    evaluation |= {"classifier_hash": "w1", "checkpoint_hash": "w1"}
    add_run(folder, 1, 0.8, run="run1-eval", **evaluation)
    add_run(folder, 1, 0.4, run="elsewhere", store="beef", data="real", **evaluation)
    tuned = {"protocol": "finetune", "checkpoint": "runs/run0/best.ckpt", "checkpoint_hash": "w0"}
    add_run(folder, 0, 0.75, run="tuned", **tuned)
    add_run(folder, 0, 0.6, run="partial", data_pairs="partial", n=20)
    return folder


def means(folder: Path) -> pd.DataFrame:
    table = over_seeds(select_rows(Table("phenotyping", (folder,))).rows)
    return table.set_index("runs")[["mean", "seeds"]].round(6)


def test_only_runs_that_differ_in_their_seed_are_averaged(mixed: Path) -> None:
    assert {runs: tuple(row) for runs, row in means(mixed).iterrows()} == {
        "older": (0.15, 1), "run1, run0": (0.755, 2), "fast0, fast1": (0.85, 2), "real0, real1": (0.55, 2),
        "try": (0.5, 1), "elsewhere": (0.4, 1), "tuned": (0.75, 1), "partial": (0.6, 1),
    }  # fmt: skip


def test_each_run_is_in_the_table_or_in_a_line(mixed: Path) -> None:
    _, lines = select_rows(Table("phenotyping", (mixed,)))
    assert sorted(lines) == [
        "not averaged: older, written by a version that did not record the settings",
        "not counted: run0 (started 2030-01-01), as run0 (started 2030-01-09) repeats it with the same "
        "settings and seed",
        "not counted: run1-eval, which repeats the test of run1",
    ]
    for style in ("text", "markdown", "latex"):
        text = make_table(Table("phenotyping", (mixed,), format=style))
        assert all(line in text for line in lines)
        assert all(line in make_paper_table(Paper("phenotyping", (mixed,), format=style)) for line in lines)
    names = {name for row in means(mixed).index for name in row.split(", ")} | {"run1-eval"}
    assert names == set(pd.read_csv(mixed / "phenotyping.csv")["run"])


def test_two_evaluations_of_one_name_have_one_line(mixed: Path) -> None:
    rows = pd.read_csv(mixed / "phenotyping.csv")
    again = rows[rows["run"] == "run1-eval"].assign(started="2031-01-01")
    pd.concat([rows, again]).to_csv(mixed / "phenotyping.csv", index=False)
    _, lines = select_rows(Table("phenotyping", (mixed,)))
    assert [line for line in lines if "run1-eval" in line] == [
        "not counted: run1-eval (2 times), which repeats the test of run1"
    ]


def test_evaluations_and_runs_that_repeat_another_have_one_line(tmp_path: Path) -> None:
    for day, run in enumerate(("first", "second", "third"), 1):
        add_run(tmp_path, 0, 0.7, run=run, started=f"2030-01-0{day}")
    for run in ("one-eval", "another-eval"):
        add_run(tmp_path, 0, 0.7, run=run, mode="eval", started="2030-02-01", settings={"evaluates": 1})
    _, lines = select_rows(Table("phenotyping", (tmp_path,)))
    assert lines == [
        "not counted: one-eval, another-eval, which repeat the test of first",
        "not counted: first (started 2030-01-01), second (started 2030-01-02), as third (started 2030-01-03) "
        "repeats them with the same settings and seed",
    ]


def test_the_table_tells_its_rows_apart_and_what_their_settings_are(mixed: Path) -> None:
    text = make_table(Table("phenotyping", (mixed,)))
    title, header, *rows = text.splitlines()
    assert title == (
        "phenotyping, test, macro: data of unknown kind, which may be synthetic: rows of a version that did "
        "not say; and SYNTHETIC data: these scores mean nothing clinically; and real data"
    )
    names = header.split()
    assert names[:9] == [
        "protocol", "fusion", "objective", "mode", "data", "store", "data_pairs", "classifier", "settings"
    ]  # fmt: skip
    keys = [row[: header.index("metric")] for row in rows[:8]]
    assert len(set(keys)) == 8
    assert any("--lr 0.01, --epochs 300" in line for line in rows)
    assert any("--lr 0.001, --epochs 1" in line for line in rows)


def test_a_summary_has_every_run(mixed: Path) -> None:
    (head, header, *lines), count = summary(mixed).splitlines(), 13
    assert "SYNTHETIC data" in head and "real data" in head
    assert {"seed", "mode", "data", "store", "data_pairs", "settings"} < set(header.split())
    values = [line for line in lines[:count] if "0." in line]
    assert len(values) == count and "0.150" in "".join(values)


def test_a_seed_with_two_checkpoints_is_not_averaged(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7, run="a", checkpoint_hash="early")
    add_run(tmp_path, 0, 0.8, run="b", checkpoint_hash="late")
    add_run(tmp_path, 1, 0.9, run="c", checkpoint_hash="late")
    table, lines = means(tmp_path), select_rows(Table("phenotyping", (tmp_path,))).lines
    assert {runs: tuple(row) for runs, row in table.iterrows()} == {"a": (0.7, 1), "b, c": (0.85, 2)}
    assert lines == ["not averaged: a, b, c, which start from different checkpoints with the same seed"]
    assert "checkpoint late" in make_table(Table("phenotyping", (tmp_path,)))


def test_an_evaluation_with_other_scores_is_kept(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7)
    add_run(tmp_path, 0, 0.5, run="eval", mode="eval", settings={"data.image_size": 64})
    assert set(means(tmp_path).index) == {"run0", "eval"}


def test_a_score_without_a_value_has_a_line(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7)
    add_run(tmp_path, 1, float("nan"))
    selection = select_rows(Table("phenotyping", (tmp_path,)))
    assert selection.lines == [
        "not counted: run1 in auroc, as it has no value (one class, or a small subgroup)"
    ]
    assert over_seeds(selection.rows)[["mean", "seeds"]].to_numpy().tolist() == [[0.7, 1]]


def test_runs_of_other_encoders_are_never_averaged(tmp_path: Path) -> None:
    """Not even where all settings look alike, as they do on checkpoints that chose the encoders."""
    ours = {"fusion": "concatenation", "ehr_encoder": "lstm", "vision_backbone": "resnet34"}
    seen = "rad-dino (saw MIMIC-CXR)"
    for seed in (0, 1):
        add_run(tmp_path, seed, 0.6 + seed / 10, **ours, cxr_weights="random")
        add_run(
            tmp_path, seed, 0.7, run=f"gru{seed}", **ours | {"ehr_encoder": "gru_d"}, cxr_weights="random"
        )
        add_run(tmp_path, seed, 0.8, run=f"file{seed}", **ours, cxr_weights="external")
        add_run(
            tmp_path, seed, 0.9, run=f"dino{seed}", **ours | {"vision_backbone": "rad-dino"}, cxr_weights=seen
        )
    floor = {"protocol": "baseline", "fusion": "logistic_regression", "settings": {"model": 1}}
    none = dict.fromkeys(ENCODERS, NO_ENCODER)
    add_run(tmp_path, 0, 0.5, run="floor", **floor, **none, checkpoint_hash="")
    assert {runs: tuple(row) for runs, row in means(tmp_path).iterrows()} == {
        "run0, run1": (0.65, 2), "gru0, gru1": (0.7, 2), "file0, file1": (0.8, 2), "dino0, dino1": (0.9, 2),
        "floor": (0.5, 1),
    }  # fmt: skip
    text = make_table(Table("phenotyping", (tmp_path,)))
    for table in (text, summary(tmp_path), make_paper_table(Paper("phenotyping", (tmp_path,)))):
        assert {*ENCODERS} < set(table.splitlines()[1].split()) and seen in table


def test_encoders_that_are_the_same_where_there_are_some_take_no_column(tmp_path: Path) -> None:
    same = {"ehr_encoder": "tcn", "vision_backbone": "resnet18", "cxr_weights": "random"}
    add_run(tmp_path, 0, 0.7, fusion="concatenation", **same)
    add_run(tmp_path, 0, 0.6, run="ehr", **same | {"vision_backbone": NO_ENCODER})
    _, header, *lines = make_table(Table("phenotyping", (tmp_path,))).splitlines()
    assert not {*ENCODERS} & set(header.split())
    assert lines[-2].startswith("all rows: ") and lines[-2].endswith(", ehr_encoder tcn")
    assert lines[-1] == "where there is one: vision_backbone resnet18"


def test_runs_of_a_version_that_knew_one_record_encoder_are_read_as_its(tmp_path: Path) -> None:
    for name, fusion in (("older", "ehr"), ("image", "cxr")):
        add_run(tmp_path, 0, 0.7, run=name, fusion=fusion)
    path = tmp_path / "phenotyping.csv"
    pd.read_csv(path).drop(columns=list(ENCODERS)).to_csv(path, index=False)
    assert read_results(path)["ehr_encoder"].tolist() == ["lstm", NO_ENCODER]
    add_run(tmp_path, 1, 0.8, ehr_encoder="gru_d")
    assert read_results(path)["ehr_encoder"].tolist() == ["lstm", NO_ENCODER, "gru_d"]
    assert set(means(tmp_path).index) == {"older", "image", "run1"}


def test_rows_of_an_older_file_are_kept_when_new_ones_come(tmp_path: Path) -> None:
    path = tmp_path / "phenotyping.csv"
    path.write_text("run,task,value\n001,phenotyping,0.5\n")
    append(path, [{"run": "new", "store": "abc", "value": 0.25}])
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert tuple(table) == COLUMNS
    assert table[["run", "store", "value"]].to_numpy().tolist() == [
        ["001", "", "0.5"],
        ["new", "abc", "0.25"],
    ]


def test_the_page_on_results_explains_every_column(mixed: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/results.md").read_text()
    table = make_table(Table("phenotyping", (mixed,), format="csv")).splitlines()[0].split(",")
    shown = make_table(Table("phenotyping", (mixed,))).splitlines()[1].split()
    assert [name for name in {*table, *shown} - {"metric"} if f"`{name}`" not in page] == []
