"""Compare two builds on the hourly tasks: `python -m benchmarks.side_by_side FOLDER_OF_ANOTHER_BUILD`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro

from benchmarks import child
from benchmarks.record import RESULTS, Figure, record
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
STORES = ("store", "large_store")  # a classifier is trained on the first, and tested on both


@dataclass(frozen=True)
class SideBySide:
    """Train and test classifiers with this build and another, in turn, each on a store that it extracted.

    Training samples a second and seconds of an epoch come from the log.csv that run_gpu.py writes, and are
    multiplied by the share of a core that the program got: on a busy machine, only core-seconds can be
    compared. Both builds test the same classifier of the other one, on a small and on a large store: the
    additional core-seconds for the additional samples leave out the start of the program and its report.
    Their probabilities are compared. One thread each, no intervals.
    """

    other: tyro.conf.Positional[Path]
    """Folder of the other build, such as a git worktree of an older commit."""
    patients: int = 100
    """Synthetic patients, of the trainings and the small test."""
    test_patients: int = 400
    """Synthetic patients of the large test."""
    epochs: int = 2
    """Epochs of a training; the last one is timed, because the first one warms up."""
    repeats: int = 5
    """Times that everything is run; the median counts."""
    python: Path = Path(sys.executable)
    """Interpreter with the packages of both builds."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


class Build(NamedTuple):
    """A version of the repository, and where its stores and runs are."""

    root: Path
    folder: Path


class Trained(NamedTuple):
    """What a training took: rate and core-seconds of the last epoch, and memory."""

    samples_per_core_second: float
    epoch: float
    peak_mb: float


def make_builds(
    other: Path, folder: Path, patients: Mapping[str, int], python: Path = Path(sys.executable)
) -> tuple[Build, Build]:
    """Write raw data of each store's number of patients, and extract it with both builds; ours is first."""
    builds = Build(child.ROOT, folder / "ours"), Build(other.resolve(), folder / "other")
    for store, count in patients.items():
        raw = folder / f"raw_{store}"
        size = ["--patients", str(count), "--seed", "0"]
        images = ["--image_size", "64", "--paired", "0.9", "--workers", "0"]
        child.run([python, "-m", "datasets.synthetic", *size, *images, "--out", raw])
        sources: list[str | Path] = ["--mimic_iv", raw / "mimic-iv", "--mimic_cxr", raw / "mimic-cxr-jpg"]
        for build in builds:
            command = [python, "-m", "datasets.extract", *sources, "--out", build.folder / store]
            child.run(command, cwd=build.root)
    return builds


def run_gpu(
    config: SideBySide, build: Build, name: str, *flags: str | Path, store: str = STORES[0]
) -> child.Ended:
    """Run a build's run_gpu.py."""
    command: list[str | Path] = [config.python, "run_gpu.py", "--name", name, "--device", "cpu"]
    command += ["--store", build.folder / store, "--save_dir", build.folder, "--results_dir", build.folder]
    return child.run([*command, "--bootstrap", "0", *flags], {"OMP_NUM_THREADS": "1"}, build.root)


def train(config: SideBySide, build: Build, flags: str, name: str) -> Trained:
    """Train a classifier, and read what it took."""
    settings = ["--protocol", "supervised", "--epochs", str(config.epochs), "--lr", "1e-4"]
    ended = run_gpu(config, build, name, *settings, *flags.split())
    last = read_rows(build.folder / name / "log.csv").iloc[-1]
    share = ended.core_seconds / ended.seconds
    rate, epoch = float(last["samples_per_second"]), float(last["seconds"])
    return Trained(rate / share, epoch * share, ended.peak_mb)


def test_both(config: SideBySide, builds: Sequence[Build], name: str) -> tuple[list[float], float]:
    """Return the samples per core-second of each build's test, and the largest gap of their probabilities.

    `name` is a run of the last build, whose classifier all test on both stores.
    """
    seconds: dict[tuple[int, str], list[float]] = {}
    tested = {}
    for _ in range(config.repeats):
        for store in STORES:
            checkpoint = builds[-1].folder / f"{name}_{store}" / "best.ckpt"
            flags = ["--mode", "eval", "--protocol", "supervised", "--load_state", str(checkpoint)]
            task = ["--task", "decompensation", "--image_size", "32", "--batch_size", "256"]
            for side, build in enumerate(builds):
                ended = run_gpu(config, build, f"tested_{store}", *flags, *task, store=store)
                seconds.setdefault((side, store), []).append(ended.core_seconds)
                path = build.folder / f"tested_{store}" / "predictions_test.csv"
                tested[side, store] = pd.read_csv(path)["probability"].to_numpy()
                count, who = len(tested[side, store]), ("ours", "other")[side]
                print(f"test of {count} samples, {who}: {ended.core_seconds:.2f} core-s", flush=True)
    small, large = STORES
    rates = []
    for side, _ in enumerate(builds):
        more = len(tested[side, large]) - len(tested[side, small])
        taken = np.median(seconds[side, large]) - np.median(seconds[side, small])
        rates.append(more / max(float(taken), 0.01))
    gap = max(float(np.abs(tested[0, store] - tested[1, store]).max()) for store in STORES)
    return rates, gap


def compare(config: SideBySide, folder: Path) -> list[Figure]:
    """Run both builds in turn, and return the medians."""
    patients = dict(zip(STORES, (config.patients, config.test_patients), strict=True))
    ours, other = make_builds(config.other, folder, patients, config.python)
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
    for store in STORES:
        once = ["--protocol", "supervised", "--epochs", "1", "--lr", "1e-4", *TRAININGS[TESTED].split()]
        run_gpu(config, other, f"classifier_{store}", *once, store=store)
    (mine_tested, theirs_tested), gap = test_both(config, (ours, other), "classifier")
    figures.append(Figure(f"test: {TESTED}", "samples/core-s", mine_tested, against, theirs_tested))
    print(f"probabilities differ by {gap:.1e} at most")
    return figures


def main(config: SideBySide) -> None:
    """Measure, print the table and append the rows."""
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(config, Path(folder))
    record(config.results, "side_by_side", ("torch", "torchvision", "numpy"), figures)


if __name__ == "__main__":
    run_cli(main, SideBySide)
