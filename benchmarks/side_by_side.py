"""Compare two builds on the hourly tasks: `python -m benchmarks.side_by_side FOLDER_OF_ANOTHER_BUILD`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro

from benchmarks import child
from benchmarks.record import RESULTS, Figure, record
from evaluation.predictions import read_predictions
from evaluation.results import read_rows
from utils.cli import run_cli
from utils.git import commit

IMAGES = "--vision_backbone resnet18 --image_size 32"
TRAININGS = {  # name: flags; all start from fresh weights of the same size
    "decompensation, both modalities, batch 16": f"--task decompensation --batch_size 16 {IMAGES}",
    "decompensation, both modalities, batch 256": f"--task decompensation --batch_size 256 {IMAGES}",
    "decompensation, EHR, batch 256": "--task decompensation --batch_size 256 --fusion ehr",
    "phenotyping, both modalities, batch 16": f"--task phenotyping --batch_size 16 {IMAGES}",
}
TESTED = "decompensation, both modalities, batch 256"


@dataclass(frozen=True)
class SideBySide:
    """Train and test classifiers with this build and another, in turn, each on a store that it extracted.

    All numbers come from the files that run_gpu.py writes: training samples a second and seconds of an epoch
    from log.csv, seconds of the test from the results. One thread each, no intervals. Our build tests a
    classifier of the other one, too, and the probabilities of both are compared. Seconds are multiplied by
    the share of a core that the program got: on a busy machine, only core-seconds can be compared.
    """

    other: tyro.conf.Positional[Path]
    """Folder of the other build, such as a git worktree of an older commit."""
    patients: int = 100
    """Synthetic patients."""
    epochs: int = 2
    """Epochs of a training; the last one is timed, because the first one warms up."""
    repeats: int = 5
    """Times that everything is run; the median counts."""
    python: Path = Path(sys.executable)
    """Interpreter with the packages of both builds."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


class Build(NamedTuple):
    """A version of the repository, and where its store and runs are."""

    root: Path
    folder: Path


class Trained(NamedTuple):
    """What a training took: rate and core-seconds of the last epoch, core-seconds of the test, and memory."""

    samples_per_core_second: float
    epoch: float
    test: float
    peak_mb: float


def make_builds(config: SideBySide, folder: Path) -> tuple[Build, Build]:
    """Write raw data, and extract it with both builds; ours is the first."""
    raw = folder / "raw"
    patients = ["--patients", str(config.patients), "--seed", "0"]
    images = ["--image_size", "64", "--paired", "0.9", "--workers", "0"]
    child.run([config.python, "-m", "datasets.synthetic", *patients, *images, "--out", raw])
    builds = Build(child.ROOT, folder / "ours"), Build(config.other.resolve(), folder / "other")
    sources = ["--mimic_iv", raw / "mimic-iv", "--mimic_cxr", raw / "mimic-cxr-jpg"]
    for build in builds:
        flags = [*sources, "--out", build.folder / "store"]
        child.run([config.python, "-m", "datasets.extract", *flags], cwd=build.root)
    return builds


def run_gpu(config: SideBySide, build: Build, name: str, *flags: str | Path) -> child.Ended:
    """Run a build's run_gpu.py."""
    folders = ["--store", build.folder / "store", "--save_dir", build.folder, "--results_dir", build.folder]
    command = [config.python, "run_gpu.py", "--name", name, "--device", "cpu", "--bootstrap", "0"]
    return child.run([*command, *folders, *flags], {"OMP_NUM_THREADS": "1"}, build.root)


def train(config: SideBySide, build: Build, flags: str, name: str) -> Trained:
    """Train a classifier, and read what it took."""
    settings = ["--protocol", "supervised", "--epochs", str(config.epochs), "--lr", "1e-4"]
    ended = run_gpu(config, build, name, *settings, *flags.split())
    last = read_rows(build.folder / name / "log.csv").iloc[-1]
    results = pd.concat([read_rows(path) for path in build.folder.glob("*.csv")])
    of_run = results[results["run"] == name].groupby("split")["seconds"].first()
    test = max(float(of_run["test"]) - float(of_run["val"]), 0.1)  # the results have tenths of a second
    share = ended.core_seconds / ended.seconds
    rate, epoch = float(last["samples_per_second"]), float(last["seconds"])
    return Trained(rate / share, epoch * share, test * share, ended.peak_mb)


def largest_gap(config: SideBySide, ours: Build, other: Build, checkpoint: Path) -> float:
    """Return the largest difference of the probabilities that both builds give for a classifier."""
    flags = ["--mode", "eval", "--protocol", "supervised", "--load_state", checkpoint]
    for build in (ours, other):
        run_gpu(config, build, "tested", *flags, "--task", "decompensation", "--image_size", "32")
    paths = [build.folder / "tested" / "predictions_test.csv" for build in (ours, other)]
    mine, theirs = (pd.read_csv(path)["probability"] for path in paths)
    assert len(read_predictions(paths[0])) == len(theirs), "both builds test the same samples"
    return float(np.abs(mine - theirs).max())


def compare(config: SideBySide, folder: Path) -> list[Figure]:
    """Run both builds in turn, and return the medians."""
    ours, other = make_builds(config, folder)
    taken: dict[tuple[str, int], list[Trained]] = {}
    for repeat in range(config.repeats):
        for number, (work, flags) in enumerate(TRAININGS.items()):
            for side, build in enumerate((ours, other)):
                trained = train(config, build, flags, f"run{number}-{repeat}")
                taken.setdefault((work, side), []).append(trained)
                print(f"{work}, {('ours', 'other')[side]}: {trained}", flush=True)
    against = f"build {commit(other.root)}"
    figures = []
    for work in TRAININGS:
        mine, theirs = (Trained(*np.median(taken[work, side], axis=0)) for side in (0, 1))
        row = (against, theirs.samples_per_core_second, mine.peak_mb)
        figures.append(Figure(f"training: {work}", "samples/core-s", mine.samples_per_core_second, *row))
        row = (against, theirs.epoch, mine.peak_mb)
        figures.append(Figure(f"an epoch and its validation: {work}", "core-s", mine.epoch, *row))
        figures.append(Figure(f"peak memory: {work}", "MiB", mine.peak_mb, against, theirs.peak_mb))
        if work == TESTED:
            figures.append(Figure(f"test: {work}", "core-s", mine.test, against, theirs.test))
    checkpoint = other.folder / f"run{list(TRAININGS).index(TESTED)}-0" / "best.ckpt"
    print(f"probabilities differ by {largest_gap(config, ours, other, checkpoint):.1e} at most")
    return figures


def main(config: SideBySide) -> None:
    """Measure, print the table and append the rows."""
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(config, Path(folder))
    record(config.results, "side_by_side", ("torch", "torchvision", "numpy"), figures)


if __name__ == "__main__":
    run_cli(main, SideBySide)
