"""docs/extending.md is true: its blocks, put into a copy of the repository, are in style, and run."""

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
OUTSIDE = shutil.ignore_patterns(".*", "data", "runs", "results", "mutants", "__pycache__")
SLOW = "test_two_processes_train_like_one_with_the_whole_batch"  # for all objectives
BLOCK = re.compile(r"(?:`([\w./]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)


class Block(NamedTuple):
    """What stands between two fences: which file it is about, if any, and in which language."""

    file: str
    language: str
    text: str


def journey(title: str) -> list[Block]:
    """The blocks of a section, in their order."""
    (section,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(title)]
    return [Block(*found.groups(default="")) for found in BLOCK.finditer(section)]


def travel(title: str, copy: Path) -> None:
    """Does in a copy of the repository what a section says."""
    blocks = journey(title)
    assert {block.language for block in blocks} == {"python", "diff", "bash"}
    for block in blocks:
        DO[block.language](copy, block)
    run(copy, "python -m ruff check . && python -m ruff format --check .")


def write_new(copy: Path, block: Block) -> None:
    path = copy / block.file
    assert block.file and not path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.text)


def change(copy: Path, block: Block) -> None:
    path, lines = copy / block.file, block.text.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
    assert path.read_text().count(before) == 1, f"{block.file} has not one place like\n{before}"
    path.write_text(path.read_text().replace(before, after))


def run(copy: Path, commands: str) -> None:
    """Runs what a user would, by this Python and on one core."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    own["PYTEST_ADDOPTS"] = f"--deselect=tests/models/test_objectives.py::{SLOW}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=copy,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


DO = {"python": write_new, "diff": change, "bash": lambda copy, block: run(copy, block.text)}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository, on its own."""
    return Path(shutil.copytree(ROOT, tmp_path / "copy", ignore=OUTSIDE))


def test_an_objective_is_added_as_the_page_says(copy: Path) -> None:
    write_random_store(copy / "data/demo/store")
    travel("An objective", copy)
    left = checkpoint.load(copy / "runs/barlow/barlow_epoch_00.ckpt")
    assert left["config"]["objective"] == "barlow"


def test_a_fusion_is_added_as_the_page_says(copy: Path) -> None:
    write_random_store(copy / "data/demo/store")
    travel("A fusion", copy)
    assert set(pd.read_csv(copy / "results/phenotyping.csv")["fusion"]) == {"gated"}
    assert len(list(copy.glob("tasks/*/*/gated.sh"))) == 12


def test_a_task_is_added_as_the_page_says(copy: Path) -> None:
    synthetic = "--patients 80 --image_size 64 --paired 0.9 --workers 0"
    run(copy, f"python -m datasets.synthetic --out data/demo/raw {synthetic}")
    travel("A task", copy)
    assert (copy / "tasks/long_stay/README.md").read_text().startswith("# Long stay\n\nLong stay: from the")
    rows = pd.read_csv(copy / "results/long-stay.csv")
    assert {"val", "test"} == set(rows["split"]) and (rows.loc[rows["label"] == "y_true", "n"] > 0).all()
