"""docs/extending.md is correct: its blocks, applied to a copy of the repository, are in style and run."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from tests.random_store import write_random_store
from utils import checkpoint

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "extending.md"
IGNORED = shutil.ignore_patterns(".*", "data", "runs", "results", "mutants")
SLOW = "test_two_processes_train_like_one_with_the_whole_batch"  # for all objectives
BLOCK = re.compile(r"(?:`([\w./]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)


class Block(NamedTuple):
    """A fenced block of the page: the file that it creates or changes, if any, its language and its text."""

    file: str
    language: str
    text: str


def blocks_of(title: str) -> list[Block]:
    """The blocks of a section in their order."""
    (section,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(title)]
    return [Block(*match.groups(default="")) for match in BLOCK.finditer(section)]


def follow(title: str, copy: Path) -> set[str]:
    """Do what a section says in a copy of the repository; return the files that it writes by hand."""
    for block in blocks_of(title):
        if block.language == "bash":
            run(copy, block.text)
        elif block.language == "diff":
            change_file(copy, block)
        else:
            assert block.language == "python"
            write_file(copy, block)
    files = {block.file for block in blocks_of(title) if block.file}
    if code := " ".join(file for file in files if file.endswith(".py")):
        run(copy, f"python -m ruff check {code} && python -m ruff format --check {code}")
    return files


def write_file(copy: Path, block: Block) -> None:
    path = copy / block.file
    assert block.file and not path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.text)


def change_file(copy: Path, block: Block) -> None:
    path = copy / block.file
    lines = block.text.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
    assert path.read_text().count(before) == 1, f"{block.file} does not contain exactly once\n{before}"
    path.write_text(path.read_text().replace(before, after))


def run(copy: Path, commands: str) -> None:
    """Run commands as a user would, on one core."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": f"--deselect=tests/models/test_objectives.py::{SLOW}",
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.fixture
def copy(tmp_path: Path, quick_python: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository, in which `python` starts at once."""
    monkeypatch.setenv("PATH", f"{quick_python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    return Path(shutil.copytree(ROOT, tmp_path / "copy", ignore=IGNORED))


def test_an_objective_with_flags_takes_three_files(copy: Path) -> None:
    write_random_store(copy / "data/demo/store")
    assert len(follow("An objective", copy)) <= 3
    config = (copy / "runs/barlow/config.yaml").read_text()
    assert "redundancy: 0.01\n" in config and "scale: 0.5\n" in config
    assert checkpoint.load(copy / "runs/barlow/barlow_epoch_01.ckpt")["config"]["objective"] == "barlow"


def test_a_fusion_takes_at_most_four_files(copy: Path) -> None:
    write_random_store(copy / "data/demo/store")
    assert len(follow("A fusion", copy)) <= 4
    assert set(pd.read_csv(copy / "results/phenotyping.csv")["fusion"]) == {"gated"}
    assert len(list(copy.glob("tasks/*/*/gated.sh"))) == 12


def test_a_record_encoder_takes_two_files(copy: Path) -> None:
    write_random_store(copy / "data/demo/store")
    assert len(follow("A record encoder", copy)) == 2
    (state,) = copy.glob("runs/*gru*/best.ckpt")
    assert checkpoint.load(state)["config"]["encoders"]["ehr_encoder"] == "gru"


def test_a_cohort_an_image_encoder_and_a_variable_take_little_code(copy: Path) -> None:
    write_random_store(copy / "data/demo/store")
    assert len(follow("An image encoder", copy)) == 2
    assert set(pd.read_csv(copy / "results/phenotyping.csv")["objective"]) == {"external", "stripes"}
    synthetic = "--patients 80 --image_size 64 --paired 0.9"
    run(copy, f"python -m datasets.synthetic --out data/demo/raw {synthetic}")
    labs = copy / "data/demo/raw/mimic-iv/hosp/labevents.csv.gz"
    labs.write_bytes(gzip.compress(gzip.decompress(labs.read_bytes()).replace(b",50912,", b",50813,")))
    follow("A cohort", copy)
    long_stays = pd.read_parquet(copy / "data/long_stays/stays.parquet")
    assert len(long_stays) > 0 and long_stays["los_hours"].min() > 48
    rows = pd.read_csv(copy / "results/phenotyping.csv")
    assert set(rows[rows["mode"] == "eval"]["run"]) == {"trained-eval"}
    (copy / "results/phenotyping.csv").unlink()
    files = {f"datasets/resources/{name}.yaml" for name in ("channels", "variables")}
    assert follow("A variable", copy) == files
    channels = json.loads((copy / "data/lactate/normalizer.json").read_text())["channels"]
    events = pd.read_parquet(copy / "data/lactate/events.parquet")
    assert channels[-1] == "Lactate" and (events["variable"] == "Lactate").sum() > 100
    probe = checkpoint.load(copy / "runs/lactate-probe/best.ckpt")
    assert probe["variables"][-1]["name"] == "Lactate"
    assert probe["parts"]["ehr_encoder"]["lstm.weight_ih_l0"].shape[1] == 78
    assert pd.read_csv(copy / "results/phenotyping.csv")["run"].nunique() == 2


def test_a_task_takes_at_most_four_files(copy: Path) -> None:
    synthetic = "--patients 80 --image_size 64 --paired 0.9"
    run(copy, f"python -m datasets.synthetic --out data/demo/raw {synthetic}")
    raw = "--mimic_iv data/demo/raw/mimic-iv --mimic_cxr data/demo/raw/mimic-cxr-jpg"
    run(copy, f"python -m datasets.extract {raw} --out data/demo/store")
    shutil.rmtree(copy / "data/demo/raw")
    assert len(follow("A task", copy)) <= 4
    assert (copy / "tasks/long_stay/README.md").read_text().startswith("# Long stay\n\nLong stay: from the")
    rows = pd.read_csv(copy / "results/long-stay.csv")
    assert {"val", "test"} == set(rows["split"]) and (rows.loc[rows["label"] == "y_true", "n"] > 0).all()
