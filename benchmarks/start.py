"""Compare how fast the programs of two builds start: `python -m benchmarks.start FOLDER_OF_ANOTHER_BUILD`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks import child
from benchmarks.record import RESULTS, Figure, record
from benchmarks.side_by_side import IMAGES, ONE_THREAD, Build, make_builds
from utils.cli import run_cli
from utils.git import commit

PROGRAMS = ("run_gpu.py", "simclr_trainer.py", "epoch_evaluation.py")
FIRST_STEPS = {
    "phenotyping, both modalities": f"--task phenotyping {IMAGES}",
    "decompensation, EHR": "--task decompensation --fusion ehr --data_pairs ehr_all",
}
# Runs a program of the working directory, which imports PyTorch itself, until its optimizer has taken a step.
UNTIL_FIRST_STEP = """
import os, runpy, sys
class Waiting:
    def find_spec(self, *module):
        optimizer = sys.modules.get("torch.optim.optimizer")
        if hasattr(optimizer, "register_optimizer_step_post_hook"):
            sys.meta_path.remove(self)
            optimizer.register_optimizer_step_post_hook(lambda *step: os._exit(0))
sys.meta_path.insert(0, Waiting())
sys.path.insert(0, os.getcwd())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.exit("the program ended before its first step")
"""


@dataclass(frozen=True)
class StartConfig:
    """Time --help and the first optimizer step of both builds, in turn, in core-seconds of one thread."""

    other: tyro.conf.Positional[Path]
    """Folder of the other build, such as a git worktree of an older commit."""
    patients: int = 100
    """Synthetic patients of the store that each build extracts."""
    repeats: int = 5
    """Times that everything is run; the median counts."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


def first_step(build: Build, flags: str) -> float:
    """Return the core-seconds from the start of run_gpu.py to the end of its first step."""
    with tempfile.TemporaryDirectory(dir=build.folder) as runs:
        settings = "--protocol supervised --batch_size 16 --lr 1e-4 --bootstrap 0 --device cpu"
        where = ["--store", str(build.folder / "store"), "--save_dir", runs, "--results_dir", runs]
        program = ["-c", UNTIL_FIRST_STEP, "run_gpu.py"]
        return core_seconds(build, [*program, *settings.split(), *flags.split(), *where])


def core_seconds(build: Build, words: Sequence[str]) -> float:
    """Return the core-seconds of Python with some arguments in the folder of a build."""
    return child.run([sys.executable, *words], ONE_THREAD, build.root).core_seconds


def compare(config: StartConfig, folder: Path) -> list[Figure]:
    """Run both builds in turn, and return the medians."""
    builds = make_builds(config.other, folder, {"store": config.patients})
    taken: dict[str, list[list[float]]] = {}
    for _ in range(config.repeats):
        for program in PROGRAMS:
            helped = [core_seconds(build, [program, "--help"]) for build in builds]
            taken.setdefault(f"{program} --help", []).append(helped)
        for work, flags in FIRST_STEPS.items():
            stepped = [first_step(build, flags) for build in builds]
            taken.setdefault(f"start of run_gpu.py to its first step: {work}", []).append(stepped)
        only_torch = core_seconds(builds[0], ["-c", "import torch"])
        taken.setdefault("import torch", []).append([only_torch] * 2)
    medians = {work: np.median(tries, axis=0) for work, tries in taken.items()}
    _, only_torch = medians.pop("import torch")
    against = f"build {commit(builds[1].root)}"
    figures = [Figure(work, "core-s", ours, against, other) for work, (ours, other) in medians.items()]
    of_torch = [
        Figure(work, "core-s", ours, "import torch", only_torch) for work, (ours, _) in medians.items()
    ]
    return figures + of_torch


def main(config: StartConfig) -> None:
    """Measure, print the table and append the rows."""
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(config, Path(folder))
    record(config.results, "start", ("torch", "torchvision", "numpy"), figures)


if __name__ == "__main__":
    run_cli(main, StartConfig)
