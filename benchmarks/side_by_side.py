"""Compare two builds on the hourly tasks: `python -m benchmarks.side_by_side FOLDER_OF_ANOTHER_BUILD`."""

from __future__ import annotations

import json
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
from utils.yaml_files import read_yaml_mapping

IMAGES = "--vision_backbone resnet18 --image_size 32"
SUPERVISED = "--protocol supervised"
FINETUNE = "--protocol finetune"
TRAININGS = {  # name: flags; a supervised one starts from fresh weights, a fine-tuning from SimCLR's
    "decompensation, both modalities, batch 16": f"--task decompensation --batch_size 16 {SUPERVISED}",
    "decompensation, both modalities, batch 256": f"--task decompensation --batch_size 256 {SUPERVISED}",
    "decompensation, fine-tuning, batch 16": f"--task decompensation --batch_size 16 {FINETUNE}",
    "decompensation, EHR, batch 256": f"--task decompensation --batch_size 256 --fusion ehr {SUPERVISED}",
    "phenotyping, both modalities, batch 16": f"--task phenotyping --batch_size 16 {SUPERVISED}",
    "phenotyping, fine-tuning, batch 16": f"--task phenotyping --batch_size 16 {FINETUNE}",
}
PRETRAINING = "--name simclr --task phenotyping --epochs 1 --warmup_epochs 0 --batch_size 64"
TESTED = "decompensation, both modalities, batch 256"
# Runs run_gpu.py of the working directory in one process, with each list of flags in turn, and prints what
# each took in core-seconds. The first round, which also imports, does not count.
IN_ONE_PROCESS = """
import json, os, runpy, sys, time
sys.path.insert(0, os.getcwd())
rounds, flags = int(sys.argv[1]), json.loads(sys.argv[2])
taken = [[] for _ in flags]
for _ in range(rounds + 1):
    for number, words in enumerate(flags):
        sys.argv = ["run_gpu.py", *words]
        start = time.process_time()
        runpy.run_path("run_gpu.py", run_name="__main__")
        taken[number].append(time.process_time() - start)
print(json.dumps([times[1:] for times in taken]))
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
STORES = ("store", "large_store")  # classifiers of hourly tasks are trained on the first, and tested on both


@dataclass(frozen=True)
class SideBySide:
    """Train and test classifiers with this build and another, in turn, each on a store that it extracted.

    Training samples a second and seconds of an epoch come from the log.csv that run_gpu.py writes, and are
    multiplied by the share of a core that the program got: on a busy machine, only core-seconds can be
    compared. Both builds test the same classifier of the other one, on a small and on a large store: the
    additional core-seconds for the additional samples leave out the start of the program and its report.
    They run one after the other in one process, as the start of a program varies by more than they take.
    Their probabilities are compared. One thread each, no intervals.

    With the usual images of 32 pixels a step mostly passes over the weights of the image encoder, whatever
    it shares. --vision_backbone resnet34 --image_size 224 are the published ones.
    """

    other: tyro.conf.Positional[Path]
    """Folder of the other build, such as a git worktree of an older commit."""
    patients: int = 100
    """Synthetic patients, of the hourly trainings and the small test."""
    many_patients: int = 400
    """Synthetic patients, of the other trainings and the large test."""
    trainings: tuple[str, ...] = tuple(TRAININGS)
    """What is trained."""
    vision_backbone: str = "resnet18"
    """Image encoder of the trainings and tests."""
    image_size: int = 32
    """Height and width of its views."""
    test: bool = True
    """Whether tests are timed, too."""
    epochs: int = 2
    """Epochs of a training of the other build; all but the first, which warms up, are timed."""
    our_epochs: int = 10
    """Epochs of a training of this build, of which more fit the seconds after which a host's load changes."""
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
    """What a training took: rate and core-seconds of an epoch, and memory."""

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


def image_flags(config: SideBySide, flags: str) -> list[str | Path]:
    """Return the flags of images: what starts from a checkpoint takes the image encoder from there."""
    backbone = [] if FINETUNE in flags else ["--vision_backbone", config.vision_backbone]
    return ["--image_size", str(config.image_size), *backbone]


def images_of(config: SideBySide) -> str:
    """Return what a row's name says of the images: nothing, where they are the usual ones."""
    usual = (config.vision_backbone, config.image_size) == ("resnet18", 32)
    return "" if usual else f", {config.vision_backbone} at {config.image_size} pixels"


def pretrain(config: SideBySide, build: Build) -> None:
    """Pretrain the encoders that a build fine-tunes, for an epoch."""
    flags = [*PRETRAINING.split(), "--device", "cpu", *image_flags(config, PRETRAINING)]
    command: list[str | Path] = [config.python, "simclr_trainer.py", *flags]
    child.run([*command, "--store", build.folder / STORES[0], "--save_dir", build.folder], cwd=build.root)


def run_gpu(config: SideBySide, build: Build, flags: Sequence[str | Path]) -> child.Ended:
    """Run a build's run_gpu.py with one thread."""
    return child.run([config.python, "run_gpu.py", *flags], ONE_THREAD, build.root)


def flags_of(build: Build, name: str, store: str = STORES[0]) -> list[str | Path]:
    """Return the flags of a run of a build on one of its stores."""
    flags: list[str | Path] = ["--name", name, "--store", build.folder / store, "--save_dir", build.folder]
    return [*flags, "--results_dir", build.folder, "--device", "cpu", "--bootstrap", "0"]


def train(config: SideBySide, build: Build, flags: str, name: str) -> Trained:
    """Train a classifier, and read what it took."""
    epochs = config.our_epochs if build.root == child.ROOT else config.epochs
    settings = ["--epochs", str(epochs), "--lr", "1e-4", *image_flags(config, flags)]
    if "finetune" in flags:
        settings += ["--load_state", build.folder / "simclr" / "last.ckpt"]
    store = STORES["decompensation" not in flags]
    ended = run_gpu(config, build, [*flags_of(build, name, store), *settings, *flags.split()])
    log = read_rows(build.folder / name / "log.csv")
    timed = log.iloc[min(1, len(log) - 1) :]
    share = ended.core_seconds / ended.seconds
    rate = 1 / float((1 / timed["samples_per_second"]).mean())
    return Trained(rate / share, float(timed["seconds"].mean()) * share, ended.peak_mb)


def compare_tests(config: SideBySide, ours: Build, other: Build, against: str) -> Figure:
    """Let both builds test a classifier of the other one for each store, and compare what they take."""
    for store in STORES:
        flags = [*flags_of(other, f"classifier_{store}", store), *image_flags(config, TRAININGS[TESTED])]
        run_gpu(config, other, [*flags, *TRAININGS[TESTED].split(), "--epochs", "1", "--lr", "1e-4"])
    rates, tested = [], {}
    for build in (ours, other):
        tests = [
            flags_of_test(config, build, other.folder / f"classifier_{store}", store) for store in STORES
        ]
        words = [str(config.repeats), json.dumps(tests, default=str)]
        ended = child.run([config.python, "-c", IN_ONE_PROCESS, *words], ONE_THREAD, build.root)
        small, large = np.median(json.loads(ended.output.splitlines()[-1]), axis=1)
        for store in STORES:
            path = build.folder / f"tested_{store}" / "predictions_test.csv"
            tested[build, store] = pd.read_csv(path)["probability"].to_numpy()
        counts = [len(tested[build, store]) for store in STORES]
        print(f"tests of {counts} samples, {build.folder.name}: {small:.2f}, {large:.2f} core-s", flush=True)
        rates.append((counts[1] - counts[0]) / max(float(large - small), 0.01))
    gap = max(float(np.abs(tested[ours, store] - tested[other, store]).max()) for store in STORES)
    versions = [store_version(build.folder / STORES[0]) for build in (ours, other)]
    print(
        f"probabilities differ by {gap:.1e} at most; the stores have versions {versions[0]} and {versions[1]}"
    )
    work = f"test: {TESTED}{images_of(config)}"
    return Figure(work, "samples/core-s", rates[0], against, rates[1])


def flags_of_test(config: SideBySide, build: Build, classifier: Path, store: str) -> list[str | Path]:
    """Return the flags with which a build tests a classifier."""
    task = "--mode eval --protocol supervised --task decompensation --batch_size 256"
    return [
        *flags_of(build, f"tested_{store}", store),
        *task.split(),
        "--image_size",
        str(config.image_size),
        "--load_state",
        classifier / "best.ckpt",
    ]


def store_version(store: Path) -> object:
    """Return the version of a store: stores of different versions hold other values of the same records."""
    return read_yaml_mapping(store / "manifest.yaml")["store_version"]


def compare(config: SideBySide, folder: Path) -> list[Figure]:
    """Run both builds in turn, and return the medians."""
    patients = dict(zip(STORES, (config.patients, config.many_patients), strict=True))
    ours, other = make_builds(config.other, folder, patients, config.python)
    for build in (ours, other):
        pretrain(config, build)
    taken: dict[tuple[str, int], list[Trained]] = {}
    for repeat in range(config.repeats):
        for number, work in enumerate(config.trainings):
            for side, build in enumerate((ours, other)):
                trained = train(config, build, TRAININGS[work], f"run{number}-{repeat}")
                taken.setdefault((work, side), []).append(trained)
                print(f"{work}, {('ours', 'other')[side]}: {trained}", flush=True)
    against = f"build {commit(other.root)}"
    figures = []
    for work in config.trainings:
        mine, theirs = (Trained(*np.median(taken[work, side], axis=0)) for side in (0, 1))
        row = (against, theirs.samples_per_core_second, mine.peak_mb)
        name = f"{work}{images_of(config)}"
        figures.append(Figure(f"training: {name}", "samples/core-s", mine.samples_per_core_second, *row))
        row = (against, theirs.epoch, mine.peak_mb)
        figures.append(Figure(f"an epoch and its validation: {name}", "core-s", mine.epoch, *row))
        figures.append(Figure(f"peak memory: {name}", "MiB", mine.peak_mb, against, theirs.peak_mb))
    if config.test:
        figures.append(compare_tests(config, ours, other, against))
    return figures


def main(config: SideBySide) -> None:
    """Measure, print the table and append the rows."""
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(config, Path(folder))
    record(config.results, "side_by_side", ("torch", "torchvision", "numpy"), figures)


if __name__ == "__main__":
    run_cli(main, SideBySide)
