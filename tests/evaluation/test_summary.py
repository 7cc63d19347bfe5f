"""The table of a folder of results has a line a run, of test means alone, and names the files."""

from pathlib import Path

import pytest

from evaluation.results import append
from evaluation.summary import summary


def add(folder: Path, task: str, metrics: dict[str, float], **told: str | float) -> None:
    about = {"run": "one", "task": task, "protocol": "lineareval", "fusion": "concatenation"}
    about |= {"objective": "simclr", "split": "test", "label": "macro", "n": 50, "started": "2030-01-01"}
    rows = [about | {"metric": name, "value": value} | told for name, value in metrics.items()]
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
