"""Compare two communicating processes on a CPU with one process, and with two that do not communicate."""

from __future__ import annotations

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
from benchmarks.record import RESULTS, Figure, record
from evaluation.results import read_rows
from utils.cli import run_cli
from utils.machine import available_cpus

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES))


@dataclass(frozen=True)
class DDPBenchmark:
    """Time simclr_trainer.py under torchrun and alone, on the same cores and the same global batch."""

    pairs: int = 256
    """Pairs in an epoch."""
    batch_size: int = 64
    """Pairs in a step, over both processes."""
    vision_backbone: str = "resnet18"
    """Image encoder."""
    image_size: int = 64
    """Side of the images, in pixels."""
    epochs: int = 3
    """Epochs; the first is the warm-up, and the median of the others counts."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


def command(config: DDPBenchmark, folder: Path, name: str, batch_size: int) -> list[str]:
    """Return the command line of simclr_trainer.py."""
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
    """Run Python commands at the same time, each process with this number of threads."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / "printed").open("ab") as printed:
        processes = [
            subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, env=environment, stdout=printed, stderr=printed
            )
            for words in commands
        ]
        statuses = [process.wait() for process in processes]
    if any(statuses):
        raise ValueError(f"a training failed: {(folder / 'printed').read_text()[-2000:]}")


def speed(folder: Path, name: str) -> float:
    """Return the images per second of a run: the median over its epochs without the first."""
    return float(read_rows(folder / "runs" / name / "log.csv")["samples_per_second"][1:].median())


def measure(config: DDPBenchmark, folder: Path) -> list[Figure]:
    """Measure one process on all cores, two on half of them each, and two separate runs."""
    rng = np.random.default_rng(0)
    counts = {"train": config.pairs, "val": 16, "test": 2}
    write_random_store(folder / "store", {name: icu_hours(rng, count) for name, count in counts.items()})
    batch_size, half_batch = config.batch_size, config.batch_size // PROCESSES
    threads = available_cpus() // PROCESSES or 1
    run(folder, available_cpus(), command(config, folder, "one", batch_size))
    run(folder, threads, [*TORCHRUN, *command(config, folder, "two", batch_size)])
    separate_runs = [f"separate{number}" for number in range(PROCESSES)]
    run(folder, threads, *(command(config, folder, name, half_batch) for name in separate_runs))
    one, two = speed(folder, "one"), speed(folder, "two")
    separate = sum(speed(folder, name) for name in separate_runs)
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest process
    shape = f"{config.vision_backbone} at {config.image_size}, batch {batch_size}"
    return [
        Figure(
            f"2 processes, {shape}", "images/s", two, f"1 process, {available_cpus()} threads", one, peak_mb
        ),
        Figure(f"2 processes, {shape}", "images/s", two, "2 that exchange nothing", separate, peak_mb),
    ]


def main(config: DDPBenchmark) -> None:
    """Measure, print and append the rows, and print the share of time that communication takes."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(config, Path(folder))
    record(config.results, "ddp", ("torch", "torchvision", "numpy"), figures)
    print(f"communication and waiting take {1 - figures[1].ratio:.0%} of a step of two processes")


if __name__ == "__main__":
    run_cli(main, DDPBenchmark)
