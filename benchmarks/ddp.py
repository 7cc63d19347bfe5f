"""Two processes on a CPU against one, and against two that do not speak to each other."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.random_store import icu_hours, write_random_store
from benchmarks.record import RESULTS, Figure, cores, record
from utils.cli import run_cli

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES))


@dataclass(frozen=True)
class DDPBenchmark:
    """Time simclr_trainer.py under torchrun and alone, on the same cores and the same global batch."""

    pairs: int = 256
    """Pairs of an epoch."""
    batch_size: int = 64
    """Pairs of a step, of both processes together."""
    vision_backbone: str = "resnet18"
    """Image encoder."""
    image_size: int = 64
    """Side of the images, in pixels."""
    epochs: int = 3
    """Epochs; the first warms up, the median of the others counts."""
    results: Path = RESULTS
    """File that the measured rows are added to."""


def command(config: DDPBenchmark, folder: Path, name: str, batch_size: int) -> list[str]:
    """simclr_trainer.py and its flags."""
    flags = {
        "store": folder / "store",
        "save_dir": folder / "runs",
        "name": name,
        "device": "cpu",
        "batch_size": batch_size,
        "vision_backbone": config.vision_backbone,
        "image_size": config.image_size,
        "epochs": config.epochs,
        "warmup_epochs": 1,
    }
    return [
        "simclr_trainer.py",
        *(word for flag, value in flags.items() for word in (f"--{flag}", str(value))),
    ]


def run(folder: Path, threads: int, *commands: Sequence[str]) -> None:
    """Runs Python commands side by side, each process on some threads."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / "printed").open("ab") as printed:
        started = [
            subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, env=environment, stdout=printed, stderr=printed
            )
            for words in commands
        ]
        ended = [process.wait() for process in started]
    if any(ended):
        raise ValueError(f"a training failed: {(folder / 'printed').read_text()[-2000:]}")


def speed(folder: Path, name: str) -> float:
    """Images a second of a run: the median of its epochs behind the first."""
    with (folder / "runs" / name / "log.csv").open(newline="") as file:
        return float(np.median([float(row["samples_per_second"]) for row in csv.DictReader(file)][1:]))


def measure(config: DDPBenchmark, folder: Path) -> list[Figure]:
    """Images a second of one process on all cores, of two on half of them each, and of two for themselves."""
    draw = np.random.default_rng(0)
    counts = {"train": config.pairs, "val": 16, "test": 2}
    write_random_store(folder / "store", {name: icu_hours(draw, count) for name, count in counts.items()})
    whole, half = config.batch_size, config.batch_size // PROCESSES
    run(folder, cores(), command(config, folder, "one", whole))
    run(folder, cores() // PROCESSES or 1, [*TORCHRUN, *command(config, folder, "two", whole)])
    apart = [f"apart{number}" for number in range(PROCESSES)]
    run(folder, cores() // PROCESSES or 1, *(command(config, folder, name, half) for name in apart))
    one, two = speed(folder, "one"), speed(folder, "two")
    silent = sum(speed(folder, name) for name in apart)
    held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest process
    shape = f"{config.vision_backbone} at {config.image_size}, batch {whole}"
    return [
        Figure(f"2 processes, {shape}", "images/s", two, f"1 process, {cores()} threads", one, held),
        Figure(f"2 processes, {shape}", "images/s", two, "2 that exchange nothing", silent, held),
    ]


def main(config: DDPBenchmark) -> None:
    """Measure, print the table and what share of the time goes into communication, and add the rows."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(config, Path(folder))
    record(config.results, "ddp", ("torch", "torchvision", "numpy"), found)
    print(f"communication and waiting take {1 - found[1].ratio:.0%} of a step of two processes")


if __name__ == "__main__":
    run_cli(main, DDPBenchmark)
