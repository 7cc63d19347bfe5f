"""Tables of results list all runs, average them over seeds, or show them as in a paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from evaluation import tables
from evaluation.layout import Page, columns_that_tell, render
from evaluation.paper import Paper, make_paper_table
from evaluation.predictions import write_predictions
from evaluation.results import Recorded, read_recorded, write_settings
from evaluation.row_notes import differing_settings
from evaluation.seeds import RowSelection, over_seeds, select_rows
from evaluation.tables import Summary, Table, make_table, summary
from tests.evaluation.result_rows import SETTINGS, add_run
from tests.samples import make_samples
from utils.config import digest, parse

NOTICE = "SYNTHETIC data: these scores mean nothing clinically"


def means(*folders: Path, metric: str = "auroc") -> list[dict]:
    return over_seeds(select_rows(Table("phenotyping", folders, (metric,))).rows).to_dict("records")


def test_a_block_for_each_task_has_a_line_for_each_run(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.91234)
    add_run(tmp_path, 0, 0.5, metric="auprc", low=np.nan, high=np.nan)
    add_run(tmp_path, 0, 0.11, split="val")
    add_run(tmp_path, 0, 0.22, label="Shock")
    add_run(tmp_path, 0, 0.6, run="two", objective="random")
    add_run(tmp_path, 0, 0.4, metric="kappa", task="length-of-stay", n=60)
    assert summary(tmp_path).splitlines() == [
        f"length-of-stay, test: {NOTICE}",
        "protocol   fusion objective kappa",
        "lineareval ehr    simclr    0.400 (0.30 to 0.50)",
        "all rows: seed 0, mode train, data synthetic, store 5a5a, data_pairs paired, n 60",
        "",
        f"phenotyping, test: {NOTICE}",
        "protocol   fusion objective auroc                auprc",
        "lineareval ehr    random    0.600 (0.50 to 0.70)",
        "lineareval ehr    simclr    0.912 (0.81 to 1.01) 0.500",
        "all rows: seed 0, mode train, data synthetic, store 5a5a, data_pairs paired, n 9",
        "",
        f"results: {tmp_path}/length-of-stay.csv",
        f"results: {tmp_path}/phenotyping.csv",
    ]


def test_a_run_repeated_under_the_same_name_has_two_lines(tmp_path: Path) -> None:
    for day, value in (("2030-01-01", 0.7), ("2030-01-02", 0.8)):
        add_run(tmp_path, 0, value, started=day)
    assert [line.split()[3:5] for line in summary(tmp_path).splitlines()[2:4]] == [
        ["2030-01-01", "0.700"],
        ["2030-01-02", "0.800"],
    ]


@pytest.mark.parametrize("split", ["val", None])
def test_a_folder_without_test_scores_is_an_error(tmp_path: Path, split: str | None) -> None:
    if split:
        add_run(tmp_path, 0, 0.9, split=split)
    with pytest.raises(ValueError, match="--results_dir"):
        summary(tmp_path)


def test_a_table_sums_up_the_seeds_of_equal_runs(tmp_path: Path) -> None:
    for seed, value in enumerate((0.7, 0.8, 0.75)):
        add_run(tmp_path, seed, value)
    add_run(tmp_path, 0, 0.6, objective="random", run="other")
    add_run(tmp_path, 0, 0.3, metric="auprc")
    add_run(tmp_path, 0, 0.3, label="Shock")
    add_run(tmp_path, 0, 0.3, split="val")
    simclr, random = sorted(means(tmp_path), key=lambda row: row["objective"] != "simclr")
    assert simclr["seeds"] == simclr["checkpoints"] == 3 and simclr["mean"] == pytest.approx(0.75)
    assert simclr["sd"] == pytest.approx(0.05)
    half = 4.302653 * 0.05 / 3**0.5  # Student's t of 2 degrees of freedom
    assert (simclr["seeds_low"], simclr["seeds_high"]) == pytest.approx((0.75 - half, 0.75 + half))
    assert (simclr["low"], simclr["high"]) == pytest.approx((0.65, 0.85))
    assert random["seeds"] == 1 and np.isnan([random["sd"], random["seeds_low"]]).all()


def test_the_interval_of_many_seeds_is_that_of_students_t(tmp_path: Path) -> None:
    for seed in range(32):
        add_run(tmp_path, seed, seed / 31)
    (row,) = means(tmp_path)
    half = 2.039513 * row["sd"] / 32**0.5  # 31 degrees of freedom
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((0.5 - half, 0.5 + half))


@pytest.mark.parametrize(
    ("metric", "values", "shown"),
    [
        ("auroc", (0.75, 0.82), "n = 2"),  # 0.34 to 1.23
        ("auroc", (0.76, 0.77), "0.7015 to 0.8285"),
        ("kappa", (-0.1, 0.1), "n = 2"),
        ("kappa", (-0.05, 0.05), "-0.6353 to 0.6353"),
        ("mse", (100.0, 140.0), "n = 2"),
        ("mse", (100.0, 101.0), "94.1469 to 106.8531"),
    ],
)
def test_an_interval_over_two_seeds_that_is_impossible_is_not_printed(
    tmp_path: Path, metric: str, values: tuple[float, float], shown: str
) -> None:
    for seed, value in enumerate(values):
        add_run(tmp_path, seed, value, metric=metric)
    assert f" 2 {shown} " in make_table(Table("phenotyping", (tmp_path,)))
    assert np.isnan(means(tmp_path, metric=metric)[0]["seeds_low"]) == (shown == "n = 2")


def test_a_run_called_by_a_number_keeps_its_name(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7, run="001")
    add_run(tmp_path, 1, 0.2, run="1")
    assert select_rows(Table("phenotyping", (tmp_path,))).rows["run"].tolist() == ["001", "1"]


@pytest.mark.filterwarnings("error")
def test_supervised_runs_alone_make_a_table(tmp_path: Path) -> None:
    supervised = {
        "objective": "supervised",
        "checkpoint": None,
        "checkpoint_hash": None,
        "low": None,
        "high": None,
    }
    for seed, value in enumerate((0.7, 0.8)):
        add_run(tmp_path, seed, value, commit="1e400", **supervised)
        add_run(tmp_path, seed, float("nan"), metric="auprc", **supervised)
    (line,) = make_table(Table("phenotyping", (tmp_path,), ("auroc",))).splitlines()[2:3]
    assert line.split()[2:7] == ["supervised", "auroc", "0.7500", "0.0707", "2"]
    lines = [line.split() for line in summary(tmp_path).splitlines()]
    assert lines[1] == ["protocol", "fusion", "objective", "seed", "auroc", "auprc"]
    assert lines[2] == ["lineareval", "ehr", "supervised", "0", "0.700"]


def test_runs_called_by_similar_numbers_stay_apart(tmp_path: Path) -> None:
    for seed, name in enumerate(("001", "7", "007")):
        add_run(tmp_path, seed, 0.7, run=name)
    rows = select_rows(Table("phenotyping", (tmp_path,))).rows
    assert rows["run"].tolist() == ["001", "7", "007"] and over_seeds(rows)["seeds"].tolist() == [3]


@pytest.mark.parametrize("kind", ["synthetic", "synthetic X-rays", "real"])
@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
def test_every_table_says_what_its_data_are(tmp_path: Path, kind: str, style: str) -> None:
    add_run(tmp_path, 0, 0.7, data=kind)
    texts = [
        make_table(Table("phenotyping", (tmp_path,), format=style)),
        make_paper_table(Paper("phenotyping", (tmp_path,), format=style)),
        summary(tmp_path),
    ]
    notice = {"synthetic": NOTICE, "real": "real data"}
    said = notice.get(kind, "real records with SYNTHETIC X-rays: these scores mean nothing clinically")
    assert all(said in text for text in texts)
    assert f",{kind}," in make_table(Table("phenotyping", (tmp_path,), format="csv"))


def test_a_latex_table_has_booktabs_and_no_bare_special_character(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.75, fusion="50 % & $x_1$")
    lines = make_table(Table("phenotyping", (tmp_path,), format="latex")).splitlines()
    assert lines[:2] == [r"\begin{tabular}{llllllrll}", r"\toprule"]
    assert r"50 \% \& \$x\_1\$" in lines[4] and lines[4].endswith(r"0.6500 to 0.8500 \\")
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"] and "mean nothing" in "".join(lines[5:-2])
    markdown = make_table(Table("phenotyping", (tmp_path,), format="markdown")).splitlines()
    cells = [cell.strip() for cell in markdown[4].strip("|").split("|")]
    assert cells[:3] == ["lineareval", "50 % & $x_1$", "simclr"]
    assert cells[3:] == ["auroc", "0.7500", "", "1", "", "0.6500 to 0.8500"]


def test_seeds_may_lie_in_a_folder_each(tmp_path: Path) -> None:
    folders = tuple(tmp_path / f"seed{seed}" for seed in range(3))
    for seed, folder in enumerate(folders):
        add_run(folder, seed, 0.7 + seed / 100, run="the-same-name")
    (row,) = means(*folders)
    assert row["seeds"] == 3 and (row["mean"], row["sd"]) == pytest.approx((0.71, 0.01))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "radiology"}, "is missing"),
        ({"task": "mortality"}, "unknown --task mortality; did you mean in-hospital-mortality?"),
        ({"metric": ("kappa",)}, "--metric kappa; available: auroc"),
    ],
)
def test_a_table_of_nothing_is_refused(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    add_run(tmp_path, 0, 0.75)
    with pytest.raises(ValueError, match=message):
        select_rows(RowSelection(**{"task": "phenotyping", "results_dir": (tmp_path,)} | settings))


def test_columns_are_shown_where_they_tell_rows_apart() -> None:
    table = pd.DataFrame({"a": ["x|y"], "b": [10]})
    assert columns_that_tell(table, ["a"], ["b"], []) == ["a"]
    page = Page("title", "notice", table)
    assert render(page, "markdown").splitlines()[2:] == ["| a    |  b |", "| ---- | -: |", r"| x\|y | 10 |"]


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    """Results and predictions of three methods, the second with two seeds: good, good too, and bad."""
    source = np.random.default_rng(0)
    truth = source.integers(0, 2, (150, 1)).astype(float)
    samples = make_samples(truth, np.arange(150), np.arange(150))
    good = truth * 0.5 + source.random(truth.shape)
    scores = {"clip": [good], "simclr": [good + source.normal(0, 0.01, truth.shape) for _ in range(2)]}
    scores["random"] = [source.random(truth.shape)]
    auroc = {"clip": 0.8, "simclr": 0.8, "random": 0.6}
    for number, (objective, predictions) in enumerate(scores.items()):
        for seed, probability in enumerate(predictions):
            run = f"{objective}-seed{seed}"
            started = f"2030-01-0{seed + 1}"
            add_run(tmp_path, seed, auroc[objective] - 0.002 * seed, run=run, objective=objective)
            add_run(tmp_path, seed, 0.1 + 0.1 * number, run=run, objective=objective, metric="brier")
            write_predictions(tmp_path / "runs" / run / "predictions_test.csv", samples, ["a"], probability)
            record = {"started": started, "settings": "s", "store": "t", "data": "synthetic data"}
            (tmp_path / "runs" / run / "environment.yaml").write_text(yaml.safe_dump(record))
    return Paper("phenotyping", (tmp_path,), save_dir=(tmp_path / "runs",), resamples=60)


def test_a_paper_table_marks_the_best_and_those_that_are_not_worse(paper: Paper) -> None:
    lines = make_paper_table(paper).splitlines()
    assert lines[:2] == [
        f"phenotyping, test, macro: {NOTICE}",
        "protocol          fusion   objective seeds AUROC                  Brier score",
    ]
    by_objective = {line.split()[4]: line for line in lines[2:5]}
    assert by_objective["CLIP"].endswith("0.800 (0.70 to 0.90) * 0.100 (0.00 to 0.20) *")
    assert "0.799 (0.70 to 0.90) †" in by_objective["SimCLR"] and " 2 " in by_objective["SimCLR"]
    assert "0.600 (0.50 to 0.70)   0.300" in by_objective["random"]  # without a mark
    assert "*: the best" in lines and any(line.startswith("†: not significantly worse") for line in lines)
    assert not any("not compared" in line for line in lines)


def test_a_paper_table_in_latex_and_markdown(paper: Paper) -> None:
    latex = make_paper_table(Paper(**vars(paper) | {"format": "latex"}))
    assert r"\textbf{0.800 (0.70 to 0.90)}" in latex and r"0.799 (0.70 to 0.90)$^\dagger$" in latex
    assert "†" not in latex and r"\toprule" in latex
    markdown = make_paper_table(Paper(**vars(paper) | {"format": "markdown"}))
    assert "**0.800 (0.70 to 0.90)**" in markdown and "0.799 (0.70 to 0.90) †" in markdown


def test_runs_without_their_folder_have_one_line(paper: Paper) -> None:
    (paper.save_dir[0] / "simclr-seed1/environment.yaml").write_text("started: 1999\n")
    (note,) = [line for line in make_paper_table(paper).splitlines() if "not compared" in line]
    assert note == (
        f"not compared with the best: 1 run whose folder is not in --save_dir {paper.save_dir[0]}; give the "
        "folder that holds theirs: simclr-seed1 (started 2030-01-02)"
    )
    elsewhere = make_paper_table(replace(paper, save_dir=(Path("nowhere"),)))
    (note,) = [line for line in elsewhere.splitlines() if "not compared" in line]
    assert "4 runs whose folder is not in --save_dir nowhere;" in note
    assert all(name in note for name in ("clip-seed0", "simclr-seed0", "simclr-seed1", "random-seed0"))


def test_a_method_with_damaged_predictions_is_named_with_its_runs(paper: Paper) -> None:
    (paper.save_dir[0] / "random-seed0/predictions_test.csv").unlink()
    (note,) = [line for line in make_paper_table(paper).splitlines() if "not compared" in line]
    assert note.startswith(
        "not compared with the best: linear evaluation EHR only random (random-seed0 (started 2030-01-01)): "
    )


def test_the_best_on_two_stores_are_those_of_the_same_samples(paper: Paper) -> None:
    for objective, value in (("clip", 0.7), ("simclr", 0.6)):
        run = f"{objective}-other"
        add_run(paper.results_dir[0], 0, value, run=run, objective=objective, store="beef", n=7)
    lines = make_paper_table(paper).splitlines()
    assert "*: the best of the rows on the same samples" in lines and "*: the best" not in lines
    assert any(line.startswith("†: not significantly worse than the best of the rows") for line in lines)


def settings_note(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("settings ")]


def test_other_settings_are_told_apart_whatever_the_number_of_seeds(tmp_path: Path) -> None:
    """Nor is the number of labels, or of checkpoints, a distinction between methods."""
    for seed, changes in ((0, {}), (1, {}), (2, {"settings": {"optim.lr": 0.01}, "n": 8})):
        add_run(tmp_path, seed, 0.7, **changes)
    for text in (
        make_paper_table(Paper("phenotyping", (tmp_path,))),
        make_table(Table("phenotyping", (tmp_path,))),
        summary(tmp_path),
    ):
        assert "settings" in text.splitlines()[1].split()
        notes = settings_note(text)
        assert [note.partition(": ")[2] for note in notes] == ["--lr 0.001", "--lr 0.01"] or [
            note.partition(": ")[2] for note in notes
        ] == ["--lr 0.01", "--lr 0.001"]


def test_a_flag_has_two_hyphens_in_latex(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7)
    add_run(tmp_path, 0, 0.8, run="fast", settings={"optim.lr": 0.01})
    text = make_table(Table("phenotyping", (tmp_path,), format="latex"))
    assert "-{}-lr 0.01}" in text and "--" not in text


def test_a_hash_of_settings_that_is_shown_has_its_line(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7)
    add_run(tmp_path, 0, 0.8, run="fast", settings={"optim.lr": 0.01})
    add_run(tmp_path, 0, 0.6, run="tuned", protocol="finetune", settings={"optim.lr": 1.0})
    text = make_table(Table("phenotyping", (tmp_path,)))
    hashes = {line.split()[1].rstrip(":") for line in settings_note(text)}
    (tuned,) = [line for line in text.splitlines() if line.startswith("finetune")]
    assert len(hashes) == 2 and digest({**SETTINGS, "optim.lr": 1.0}) not in text
    assert tuned.split()[3] == "auroc" and all(f" {name} " in text for name in hashes)


def test_settings_are_called_as_users_write_them(tmp_path: Path) -> None:
    weights = {"load_state_cxr": "6f89dd6a5770", "optim.lr": 0.1, "data.drop_cxr": [0.1, 0.0, 0.0]}
    other = {**weights, "load_state_cxr": "0123"}
    write_settings(tmp_path, weights, {"load_state_cxr": "resnet18.pth"})
    write_settings(tmp_path, other)
    write_settings(tmp_path, other, {"load_state_cxr": "chexzero.pt"})  # a former version did not know it
    write_settings(tmp_path, other, {"load_state_cxr": "copy.pt"})
    found = [read_recorded(tmp_path, digest(settings)) for settings in (weights, other)]
    assert [recorded.settings for recorded in found] == [weights, other]
    assert differing_settings(found) == [
        "--cxr_weights resnet18.pth (6f89dd6a5770)",
        "--cxr_weights chexzero.pt (0123)",
    ]
    plain = Recorded({**weights, "optim.lr": 0.2, "data.drop_cxr": [0.0, 0.0, 0.0]}, found[0].files)
    assert differing_settings([found[0], plain]) == [
        "--lr 0.1, --drop_cxr 0.1 0.0 0.0",
        "--lr 0.2, --drop_cxr 0.0 0.0 0.0",
    ]
    pretrained = [Recorded(dict.fromkeys(("load_state_ehr", "load_state_cxr"), name)) for name in "ab"]
    assert differing_settings(pretrained) == ["--load_state a", "--load_state b"]


@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
def test_an_evaluation_names_the_classifier_that_it_tested(tmp_path: Path, style: str) -> None:
    add_run(tmp_path, 0, 0.7)
    for number, file in enumerate(("last", "best_auprc")):
        evaluation = {"mode": "eval", "settings": {"classifier": "c", "load_state_ehr": "c"}}
        evaluation |= {"run": f"{file}-eval", "checkpoint": f"/data/runs/run0/{file}.ckpt"}
        hashes = dict.fromkeys(("classifier_hash", "checkpoint_hash"), f"w{number + 7}")
        add_run(tmp_path, 0, 0.5 + number / 10, **evaluation, **hashes)
    texts = [
        make_table(Table("phenotyping", (tmp_path,), format=style)),
        make_paper_table(Paper("phenotyping", (tmp_path,), format=style)),
        *([summary(tmp_path)] if style == "text" else []),
    ]
    for text in texts:
        assert "classifier 1: run0/last.ckpt" in text
        assert (
            "run0/best_auprc.ckpt" in text.replace(r"\_", "_")
            and "classifier" in text.splitlines()[1:5][{"text": 0, "markdown": 1, "latex": 1}[style]]
        )
        assert "settings" not in text.replace("did not record the settings", "")


def test_evaluations_of_one_classifier_alone_name_it(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7, mode="eval", checkpoint="runs/mine/last.ckpt")
    assert "all rows: tests of mine/last.ckpt" in make_table(Table("phenotyping", (tmp_path,)))
    add_run(tmp_path, 1, 0.7, mode="eval", checkpoint="old/mine/last.ckpt", classifier_hash="w9")
    text = make_table(Table("phenotyping", (tmp_path,)))
    assert "all rows: tests of mine/last.ckpt (w0), mine/last.ckpt (w9)" in text


def test_settings_of_evaluations_name_their_classifier_once() -> None:
    evaluations = [Recorded({"classifier": name, "load_state_ehr": name}) for name in "ab"]
    assert differing_settings(evaluations) == ["classifier a", "classifier b"]


def test_a_run_from_scratch_started_from_no_checkpoint(tmp_path: Path) -> None:
    for seed in range(2):
        add_run(tmp_path, seed, 0.7)
        add_run(tmp_path, seed, 0.6, run=f"scratch{seed}", objective="supervised", checkpoint_hash=None)
    text = make_table(Table("phenotyping", (tmp_path,)))
    names = text.splitlines()[1].split()
    by_objective = {row.split()[2]: row.split()[names.index("checkpoints")] for row in text.splitlines()[2:4]}
    assert by_objective == {"simclr": "2", "supervised": "0"}


def test_the_command_line_has_a_command_for_each_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, 0, 0.75)
    commands = {"table": "0.7500", "paper": "0.750 (0.65 to 0.85)", "summary": "0.750"}
    for command, value in commands.items():
        task = [] if command == "summary" else ["--task", "phenotyping"]
        tables.main(parse(tables.Command, [command, *task, "--results_dir", str(tmp_path)]))
        assert value in capsys.readouterr().out
    assert parse(tables.Command, ["summary"]) == Summary()
    (tmp_path / "c.yaml").write_text("task: phenotyping\nmetric: [auprc]\n")
    words = ["table", "--config", str(tmp_path / "c.yaml"), "--split", "val"]
    assert parse(tables.Command, words) == Table("phenotyping", metric=("auprc",), split="val")
    with pytest.raises(SystemExit, match="2"):
        parse(tables.Command, ["totals", "--config", str(tmp_path / "c.yaml")])


def test_what_a_csv_table_does_not_count_is_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, 0, 0.7, started="2029-01-01")
    add_run(tmp_path, 0, 0.75)
    tables.main(Table("phenotyping", (tmp_path,), format="csv"))
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 2
    assert printed.err.startswith("not counted: run0 (started 2029-01-01), as run0")
