"""Compare a pretraining with the selection of its epoch: `python -m benchmarks.selection OTHER_BUILD`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro

from benchmarks import child
from benchmarks.record import RESULTS, Figure, record
from benchmarks.side_by_side import ONE_THREAD, Build, make_builds
from utils.cli import run_cli
from utils.git import commit

TASKS = "phenotyping,in-hospital-mortality"
PRETRAINING = "--batch_size 32 --image_size 32 --patience 0 --lr 1e-3 --warmup_epochs 0 --device cpu"


@dataclass(frozen=True)
class SelectionConfig:
    """Pretrain with SimCLR and select the best epoch for two tasks, with this build and another, in turn.

    The other build keeps every epoch, and epoch_evaluation.py probes them afterwards; this one probes each
    epoch while it trains and keeps the best. Both use one thread, on the synthetic store that each extracted.
    """

    other: tyro.conf.Positional[Path]
    """Folder of the other build, such as a git worktree of an older commit."""
    patients: int = 100
    """Synthetic patients."""
    epochs: int = 30
    """Epochs of the pretraining."""
    backbone: str = "resnet34"
    """Image encoder."""
    repeats: int = 5
    """Times that both are run; the median counts."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


class Selected(NamedTuple):
    """Core-seconds of the pretraining and the selection, and MiB that they leave."""

    core_seconds: float
    mb: float


def select(config: SelectionConfig, build: Build, programs: Sequence[Sequence[str]]) -> Selected:
    """Run the programs of a build one after the other in a new folder of runs."""
    taken = 0.0
    with tempfile.TemporaryDirectory(dir=build.folder) as runs:
        where = ["--store", str(build.folder / "store")]
        for program, *flags in programs:
            place = ["--run_dir", f"{runs}/simclr"] if "evaluation" in program else ["--save_dir", runs]
            command: list[str | Path] = [sys.executable, program, *flags, *where, *place]
            taken += child.run(command, ONE_THREAD, build.root).core_seconds
        for task in TASKS.split(","):
            path = Path(runs) / "simclr" / f"results_label_{task}.csv"
            assert len(pd.read_csv(path)) == config.epochs, f"{path} has not a row for each epoch"
        found = [path.stat() for path in Path(runs).rglob("*") if path.is_file()]
        size = sum({file.st_ino: file.st_size for file in found}.values())  # a hard link takes no room
    return Selected(taken, size / 2**20)


def compare(config: SelectionConfig, folder: Path) -> list[Figure]:
    """Run both builds in turn, and return the medians."""
    ours, other = make_builds(config.other, folder, {"store": config.patients})
    epochs = ["--epochs", str(config.epochs), "--vision_backbone", config.backbone]
    pretrain = ["simclr_trainer.py", "--name", "simclr", *PRETRAINING.split(), *epochs]
    while_training = [[*pretrain, "--probe", TASKS, "--keep", "best"]]
    afterwards = [pretrain, ["epoch_evaluation.py", "--task", TASKS, "--image_size", "32", "--device", "cpu"]]
    taken: dict[str, list[Selected]] = {"ours": [], "other": []}
    for _ in range(config.repeats):
        for side, build, programs in (("ours", ours, while_training), ("other", other, afterwards)):
            taken[side].append(select(config, build, programs))
            print(f"{side}: {taken[side][-1]}", flush=True)
    mine, theirs = (Selected(*np.median(taken[side], axis=0)) for side in ("ours", "other"))
    work, against = f"pretraining of {config.epochs} epochs and selection", f"build {commit(other.root)}"
    return [
        Figure(f"{work}: time", "core-s", mine.core_seconds, against, theirs.core_seconds),
        Figure(f"{work}: disk", "MiB", mine.mb, against, theirs.mb),
    ]


def main(config: SelectionConfig) -> None:
    """Measure, print the table and append the rows."""
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(config, Path(folder))
    record(config.results, "selection", ("torch", "torchvision", "numpy"), figures)


if __name__ == "__main__":
    run_cli(main, SelectionConfig)
