"""Score hourly tasks trained by stays and by samples in the same time: `python -m benchmarks.equal_time`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks import child
from evaluation.results import read_rows
from tasks import TASKS
from utils.cli import run_cli

SETTINGS = (
    "--mode train --protocol supervised --image_size 32 --vision_backbone resnet18 --data_pairs partial "
    "--transforms_cxr supervised --optimizer adamw --weight_decay 1e-4 --clip 1 "
    "--device cpu --bootstrap 0"
)


@dataclass(frozen=True)
class EqualTimeConfig:
    """Train classifiers of the hourly tasks by samples for some epochs, and by stays for as long.

    As long is the same number of core-seconds of the whole program, its validations and test included: two
    short trainings by stays tell what an epoch of them takes. Each training is a process with one thread. A
    training that was tested is not run again. Validation scores choose between several learning rates, and
    between several sizes of a batch.
    """

    store: Path
    """Folder of the store."""
    out: Path = Path("runs/equal_time")
    """Folder of the runs, and of the result tables in `results`."""
    tasks: tuple[str, ...] = ("decompensation", "length-of-stay")
    """Tasks with a sample an hour."""
    seeds: int = 3
    """Number of seeds, from 0."""
    epochs: int = 1
    """Epochs by samples."""
    lr: float = 1e-3
    """Learning rate of both."""
    batch_size: int = 256
    """Samples in a batch by samples."""
    stay_batch_size: int = 256
    """Samples in a batch by stays: all hours of a few stays, and of more stays in larger batches."""
    fusion: str = "concatenation"
    """Fusion of all classifiers."""

    def size(self, by: str) -> int:
        """Return the samples in a batch by "sample" or "stay"."""
        return self.batch_size if by == "sample" else self.stay_batch_size


class Trained(NamedTuple):
    """A training: its epochs, the core-seconds of the program, and its scores."""

    epochs: int
    core_seconds: float
    val: float
    test: float


def train(config: EqualTimeConfig, task: str, seed: int, by: str, epochs: int) -> Trained:
    """Train and test one classifier, unless that was done before."""
    name = f"{task}-{by}-{config.lr:g}-{config.size(by)}-{epochs}-{seed}"
    results, cost = config.out / "results", config.out / name / "core_seconds.txt"
    if not cost.is_file():
        shutil.rmtree(config.out / name, ignore_errors=True)
        where = ["--store", str(config.store), "--save_dir", str(config.out), "--results_dir", str(results)]
        what = ["--task", task, "--fusion", config.fusion, "--seed", str(seed), "--name", name]
        flags = [
            *SETTINGS.split(),
            "--lr",
            str(config.lr),
            *where,
            *what,
            "--batch_by",
            by,
            "--batch_size",
            str(config.size(by)),
            "--epochs",
            str(epochs),
        ]
        ended = child.run([sys.executable, "run_gpu.py", *flags], {"OMP_NUM_THREADS": "1"})
        cost.write_text(f"{ended.core_seconds:.3f}\n")
    rows = read_rows(results / f"{task}.csv")
    is_score = (rows["label"] == "macro") & (rows["metric"] == TASKS[task].monitor)
    scores = rows[is_score & (rows["run"] == name)].groupby("split")["value"].last()
    trained = Trained(epochs, float(cost.read_text()), float(scores["val"]), float(scores["test"]))
    taken = f"{trained.core_seconds:.0f} core-s"
    print(f"{name}: {taken}, validation {trained.val:.3f}, test {trained.test:.3f}", flush=True)
    return trained


def affordable_epochs(short: Trained, longer: Trained, core_seconds: float) -> int:
    """Return how many epochs fit, as two shorter trainings tell; at least one.

    >>> affordable_epochs(Trained(1, 10.0, 0.5, 0.5), Trained(3, 16.0, 0.5, 0.5), 25.0)
    6
    """
    epoch = (longer.core_seconds - short.core_seconds) / (longer.epochs - short.epochs)
    return max(1, short.epochs + int((core_seconds - short.core_seconds) / max(epoch, 0.01)))


def main(config: EqualTimeConfig) -> None:
    """Train all, and print a table in Markdown."""
    seeds = [f"seed {seed}" for seed in range(config.seeds)]
    lines = [["task", "by", "lr", "batch", "epochs", "core-s", "validation", *seeds, "mean"]]
    lines.append(["---"] * 2 + ["---:"] * (len(lines[0]) - 2))
    for task in config.tasks:
        by_sample, by_stay = [], []
        for seed in range(config.seeds):
            by_sample.append(train(config, task, seed, "sample", config.epochs))
            short, longer = (train(config, task, seed, "stay", epochs) for epochs in (1, 3))
            epochs = affordable_epochs(short, longer, by_sample[-1].core_seconds)
            by_stay.append(train(config, task, seed, "stay", epochs))
        lines += [row(config, task, "sample", by_sample), row(config, task, "stay", by_stay)]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def row(config: EqualTimeConfig, task: str, by: str, trained: Sequence[Trained]) -> list[str]:
    """Return the cells of a line: medians, the mean validation score, each test score, and their mean."""
    table = pd.DataFrame(trained)
    epochs = sorted({each.epochs for each in trained})
    spelled = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    scores = [table["val"].mean(), *table["test"], table["test"].mean()]
    core_seconds = f"{np.median(table['core_seconds']):.0f}"
    settings = [task, by, f"{config.lr:g}", f"{config.size(by)}"]
    return [*settings, spelled, core_seconds, *(f"{score:.3f}" for score in scores)]


if __name__ == "__main__":
    run_cli(main, EqualTimeConfig)
