"""Tables of results list all runs, or average them over seeds."""

from pathlib import Path

import pytest

from evaluation import tables
from evaluation.results import append
from evaluation.tables import Summary, Table, format_table, over_seeds, print_table, select_rows, summary
from utils.config import parse


def add(folder: Path, task: str, metrics: dict[str, float], **changes: str | float) -> None:
    about = {"run": "one", "task": task, "protocol": "lineareval", "fusion": "concatenation"}
    about |= {"objective": "simclr", "split": "test", "label": "macro", "n": 50, "started": "2030-01-01"}
    rows = [about | {"metric": name, "value": value} | changes for name, value in metrics.items()]
    append(folder / f"{task}.csv", rows)


def test_each_run_has_a_line_with_its_test_means(tmp_path: Path) -> None:
    add(tmp_path, "phenotyping", {"auroc": 0.91234, "auprc": 0.5})
    add(tmp_path, "phenotyping", {"auroc": 0.11, "auprc": 0.11}, split="val")
    add(tmp_path, "phenotyping", {"auroc": 0.22, "auprc": 0.22}, label="Shock")
    add(tmp_path, "phenotyping", {"auroc": 0.6, "auprc": 0.3}, run="two", objective="random")
    add(tmp_path, "length-of-stay", {"kappa": 0.4}, n=60)
    lines = [line.split() for line in summary(tmp_path).splitlines()]
    assert lines[0] == ["task", "protocol", "fusion", "objective", "kappa", "auroc", "auprc", "n"]
    assert lines[1] == ["length-of-stay", "lineareval", "concatenation", "simclr", "0.400", "60"]
    assert lines[2] == ["phenotyping", "lineareval", "concatenation", "random", "0.600", "0.300", "50"]
    assert lines[3] == ["phenotyping", "lineareval", "concatenation", "simclr", "0.912", "0.500", "50"]
    assert lines[4:] == [["results:", str(tmp_path / f"{t}.csv")] for t in ("length-of-stay", "phenotyping")]


def test_a_run_repeated_under_the_same_name_has_two_lines(tmp_path: Path) -> None:
    for day, value in (("2030-01-01", 0.7), ("2030-01-02", 0.8)):
        add(tmp_path, "phenotyping", {"auroc": value}, started=day)
    assert [line.split()[-2] for line in summary(tmp_path).splitlines()[1:3]] == ["0.700", "0.800"]


@pytest.mark.parametrize("split", ["val", None])
def test_a_folder_without_test_scores_is_an_error(tmp_path: Path, split: str | None) -> None:
    if split:
        add(tmp_path, "phenotyping", {"auroc": 0.9}, split=split)
    with pytest.raises(ValueError, match="--results_dir"):
        summary(tmp_path)


def add_run(folder: Path, seed: int, value: float, **changes: object) -> None:
    row = {"run": f"run{seed}", "protocol": "lineareval", "fusion": "ehr", "objective": "simclr", "epoch": 5}
    row |= {"checkpoint": "runs/simclr/a.ckpt", "split": "test", "seed": seed, "label": "macro", "n": 9}
    row |= {"metric": "auroc", "value": value, "low": value - 0.1, "high": value + 0.1}
    append(folder / "phenotyping.csv", [row | {"started": f"2030-01-0{seed + 1}"} | changes])


def test_a_table_sums_up_the_seeds_of_equal_runs(tmp_path: Path) -> None:
    for seed, value in enumerate((0.7, 0.8, 0.75)):
        add_run(tmp_path, seed, value)
    add_run(tmp_path, 0, 0.1, started="2029-01-01")  # the same run, before it was repeated
    add_run(tmp_path, 0, 0.6, objective="random", run="other")
    add_run(tmp_path, 0, 0.3, metric="auprc")
    add_run(tmp_path, 0, 0.3, label="Shock")
    add_run(tmp_path, 0, 0.3, split="val")
    add_run(tmp_path, 8, 0.2, checkpoint="runs/run2/best.ckpt", run="run2-eval")  # run2 again
    table = over_seeds(select_rows(Table("phenotyping", (tmp_path,), "auroc"))).set_index("objective")
    simclr = table.loc["simclr"]
    assert simclr["seeds"] == 3 and simclr["mean"] == pytest.approx(0.75)
    assert simclr["sd"] == pytest.approx(0.05)
    half = 4.302653 * 0.05 / 3**0.5  # Student's t of 2 degrees of freedom
    assert tuple(simclr[["seeds_low", "seeds_high"]]) == pytest.approx((0.75 - half, 0.75 + half))
    assert tuple(simclr[["low", "high"]]) == pytest.approx((0.65, 0.85))
    assert table.loc["random", "seeds"] == 1 and table.loc["random"][["sd", "seeds_low"]].isna().all()
    assert len(table) == 2


def test_the_interval_of_many_seeds_is_that_of_students_t(tmp_path: Path) -> None:
    for seed in range(32):
        add_run(tmp_path, seed, seed / 31)
    (row,) = over_seeds(select_rows(Table("phenotyping", (tmp_path,)))).to_dict("records")
    half = 2.039513 * row["sd"] / 32**0.5  # 31 degrees of freedom
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((0.5 - half, 0.5 + half))


def test_a_run_called_by_a_number_keeps_its_name(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7, run="001", started="1")
    add_run(tmp_path, 1, 0.8, run="7", started="2")
    add_run(tmp_path, 2, 0.9, run="007", started="3")
    add_run(tmp_path, 9, 0.2, run="eval", checkpoint="runs/001/best.ckpt", started="4")
    rows = select_rows(Table("phenotyping", (tmp_path,)))
    assert rows["run"].tolist() == ["001", "7", "007"] and over_seeds(rows)["seeds"].tolist() == [3]


@pytest.mark.filterwarnings("error")
def test_supervised_runs_alone_make_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    supervised = {"objective": "supervised", "checkpoint": None, "low": None, "high": None, "commit": "1e400"}
    for seed, value in enumerate((0.7, 0.8)):
        add_run(tmp_path, seed, value, task="phenotyping", **supervised)
        add_run(tmp_path, seed, float("nan"), task="phenotyping", metric="auprc", **supervised)
    print_table(Table("phenotyping", (tmp_path,), "auroc"))
    assert capsys.readouterr().out.splitlines()[1].split()[2:6] == ["supervised", "auroc", "2", "0.7500"]
    lines = [line.split() for line in summary(tmp_path).splitlines()]
    assert lines[0] == ["task", "protocol", "fusion", "objective", "auroc", "auprc", "n"]
    assert lines[1] == ["phenotyping", "lineareval", "ehr", "supervised", "0.700", "9"]


def test_a_run_that_a_later_one_supersedes_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, 0, 0.7, run="first")
    add_run(tmp_path, 0, 0.8, run="second", started="2031-01-01")
    add_run(tmp_path, 1, 0.9, run="third")
    print_table(Table("phenotyping", (tmp_path,)))
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "not counted: first, as second is later and has the same protocol, fusion, objective and seed"
    ]
    assert printed.out.splitlines()[1].split()[4:6] == ["2", "0.8500"]


def test_a_table_can_be_pasted_into_a_paper(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.75, fusion="50 % & $x_1$")
    table = over_seeds(select_rows(Table("phenotyping", (tmp_path,))))
    text, markdown, latex = (
        format_table(table, style).splitlines() for style in ("text", "markdown", "latex")
    )
    assert text[0].split()[:4] == ["protocol", "fusion", "objective", "metric"] and len(text) == 2
    cells = [cell.strip() for cell in markdown[2].strip("|").split("|")]
    assert cells == [
        "lineareval", "50 % & $x_1$", "simclr", "auroc", "1", "0.7500", "", "", "", "0.6500", "0.8500"
    ]  # fmt: skip
    assert latex[0] == r"\begin{tabular}{llllrrrrrrr}" and r"seeds\_low" in latex[2]
    assert r"50 \% \& \$x\_1\$" in latex[4] and latex[4].endswith(r"0.8500 \\")
    assert format_table(table, "csv").splitlines()[1].startswith("lineareval,50 % & $x_1$,simclr,auroc,1,")


def test_seeds_may_lie_in_a_folder_each(tmp_path: Path) -> None:
    folders = tuple(tmp_path / f"seed{seed}" for seed in range(3))
    for seed, folder in enumerate(folders):
        add_run(folder, seed, 0.7 + seed / 100, run="the-same-name")
    (row,) = over_seeds(select_rows(Table("phenotyping", folders))).to_dict("records")
    assert row["seeds"] == 3 and (row["mean"], row["sd"]) == pytest.approx((0.71, 0.01))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"task": "radiology"}, "is missing"), ({"metric": "kappa"}, "--metric kappa; available: auroc")],
)
def test_a_table_of_nothing_is_refused(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    add_run(tmp_path, 0, 0.75)
    with pytest.raises(ValueError, match=message):
        select_rows(Table(**{"task": "phenotyping", "results_dir": (tmp_path,)} | settings))


def test_the_command_line_has_a_command_for_each_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, 0, 0.75, task="phenotyping")
    for words, value in ((["table", "--task", "phenotyping"], "0.7500"), (["summary"], "0.750")):
        tables.main(parse(tables.Command, [*words, "--results_dir", str(tmp_path)]))
        assert value in capsys.readouterr().out
    assert parse(tables.Command, ["summary"]) == Summary()
    (tmp_path / "c.yaml").write_text("task: phenotyping\nmetric: auprc\n")
    words = ["table", "--config", str(tmp_path / "c.yaml"), "--split", "val"]
    assert parse(tables.Command, words) == Table("phenotyping", metric="auprc", split="val")
    with pytest.raises(SystemExit, match="2"):
        parse(tables.Command, ["totals", "--config", str(tmp_path / "c.yaml")])
