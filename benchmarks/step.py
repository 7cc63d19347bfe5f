"""SimCLR's training step: from the store, on batches that are there already, and in other number formats."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from benchmarks.child import own_peak
from benchmarks.random_store import icu_hours, write_random_store
from benchmarks.record import RESULTS, Figure, record
from benchmarks.resident import Resident
from datasets.batches import Batches, DataConfig, load_batches
from datasets.schema import Batch
from datasets.store import Store
from models.encoders import EHREncoder, EncoderConfig, build_encoders
from models.heads import build_heads
from models.objectives.base import PairObjective
from simclr_trainer import PUBLISHED, SimCLRConfig
from tasks import TASKS
from training.early_stopping import StoppingConfig
from training.loop import fit
from training.optim import OptimConfig
from training.pretrain import pretrain
from utils import distributed
from utils.cli import run_cli
from utils.run import RunConfig, start_run

MEBIBYTE = 2**20
EPOCHS, EPOCH_SECONDS = 300, 28 * 60  # published; the authors note the seconds of 7,756 pairs
LSTM_BATCHES = 8  # of an epoch, by which the LSTM is timed
SAMPLED_EVERY = 0.1  # seconds between looks at how busy the GPU is


class Work(NamedTuple):
    """What is trained: image encoder, side of an image, pairs of a batch, of an epoch, and to validate on."""

    backbone: str
    image_size: int
    batch_size: int
    pairs: int
    val_pairs: int


WORK = {"cuda": Work("resnet34", 224, 256, 7756, 882), "cpu": Work("resnet18", 64, 32, 512, 64)}


class Row(NamedTuple):
    """A figure's work, unit and what it is held against; and whether a CPU has it too."""

    work: str
    unit: str
    against: str
    on_cpu: bool = True


ROWS = {
    "end_to_end": Row("training from the store", "images/s", "the same batches, resident"),
    "channels_last": Row("resident batches, channels-last", "images/s", "float32 eager"),
    "bf16": Row("resident batches, bf16", "images/s", "float32 eager", on_cpu=False),
    "both": Row("resident batches, bf16 and channels-last", "images/s", "float32 eager", on_cpu=False),
    "compiled": Row("resident batches, both and compiled", "images/s", "float32 eager", on_cpu=False),
    "busy": Row("GPU busy while training from the store", "s/s", "always", on_cpu=False),
    "epoch": Row("an epoch's training", "s", "published", on_cpu=False),
    "run": Row("300 epochs, validated and saved", "h", "published", on_cpu=False),
    "first": Row("start of the program to the end of its first step", "s", "importing torch"),
    "rows": Row("rows that the LSTM reads in an epoch", "rows", "padded to the longest"),
    "waste": Row("rows that the LSTM reads in an epoch", "rows", "hours of its stays"),
    "lstm": Row("LSTM of a batch, forward and backward", "s", "padded to the longest"),
    "share": Row("LSTM of a batch, forward and backward", "s", "the whole step"),
}
Found = dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class StepBenchmark:
    """Time the step on a GPU, at the published size; without one, a small one, and say what was not measured.

    Stays are as long as those of the open MIMIC-IV demo (benchmarks.random_store.icu_hours).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    data_device: Literal["auto", "cpu", "cuda", "disk"] = "auto"
    """Where the data lie while training from the store."""
    epochs: int = 3
    """Epochs of each training; the first warms up, the median of the others counts."""
    first_step: Path | None = None
    """Only take the first step on this store, and print the seconds since the program started; the benchmark
    itself asks for it."""
    results: Path = RESULTS
    """File that the measured rows are added to."""

    def __post_init__(self) -> None:
        """ValueError for too few epochs."""
        if self.epochs < 2:
            raise ValueError(f"--epochs {self.epochs}: the first warms up; use 2 or more")


def settings(config: StepBenchmark, work: Work, store: Path, name: str) -> SimCLRConfig:
    """What simclr_trainer.py is asked for; runs stand beside the store."""
    return SimCLRConfig(
        encoders=EncoderConfig(vision_backbone=work.backbone),
        data=DataConfig(
            store=store,
            data_device=config.data_device,
            batch_size=work.batch_size,
            image_size=work.image_size,
        ),
        optim=replace(PUBLISHED, epochs=config.epochs, warmup_epochs=1),
        stopping=StoppingConfig(patience=0),
        run=RunConfig(name=name, save_dir=store.parent / "runs", device=config.device),
    )


def speed(folder: Path) -> float:
    """Images a second of a run: the median of its epochs behind the first."""
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        return float(np.median([float(row["samples_per_second"]) for row in csv.DictReader(file)][1:]))


def train_from_store(asked: SimCLRConfig) -> dict[str, float | None]:
    """Runs simclr_trainer.py: images/s, seconds from one epoch's end to the next, and how busy the GPU is."""
    with watching_gpu() as seen:
        pretrain(asked)
    folder = asked.run.save_dir / asked.run.name
    ends = [path.stat().st_mtime for path in sorted(folder.glob("*_epoch_*.ckpt"))]
    busy = [share for when, share in seen if ends[0] < when < ends[-1]]
    return {
        "speed": speed(folder),
        "period": float(np.median(np.diff(ends))),
        "busy": float(np.mean(busy)) if busy else None,
    }


@contextmanager
def watching_gpu() -> Iterator[list[tuple[float, float]]]:
    """Fills a list with (time, share that the GPU was busy) as the driver tells; empty where it does not."""
    seen: list[tuple[float, float]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(SAMPLED_EVERY):
            seen.append((time.time(), torch.cuda.utilization() / 100))

    watcher = threading.Thread(target=look, daemon=True)
    if torch.cuda.is_available() and _driver_tells():
        watcher.start()
    try:
        yield seen
    finally:
        done.set()


def _driver_tells() -> bool:
    try:
        torch.cuda.utilization()
    except (ModuleNotFoundError, RuntimeError):  # it needs the package nvidia-ml-py
        return False
    return True


def train_resident(asked: SimCLRConfig, batches: Resident[Batch], name: str, channels_last: bool) -> float:
    """Images a second of the loop on batches that are there already."""
    asked = replace(asked, run=replace(asked.run, name=name))
    run = start_run(asked, name)
    objective = make_objective(asked)
    if not channels_last:
        objective.to(memory_format=torch.contiguous_format)
    fit(
        objective,
        batches,
        None,
        asked.optim,
        replace(asked.stopping, monitor="train_loss"),
        run,
        save=lambda: {"parts": {}, "config": {}},
    )
    return speed(run.folder)


def make_objective(asked: SimCLRConfig) -> PairObjective:
    """As simclr_trainer.py makes it."""
    encoders = build_encoders(asked.encoders)
    return asked.objective_settings().build(encoders, build_heads(encoders, asked.width))


def number_formats(asked: SimCLRConfig, batches: Resident[Batch], device: str) -> dict[str, float]:
    """{format: images a second}, on the same batches; "plain" is float32 as PyTorch has it, eager."""
    single = replace(asked, run=replace(asked.run, precision="float32"))
    compiled = replace(asked, run=replace(asked.run, compile=True))
    trials = {"plain": (single, False), "channels_last": (single, True)}
    if device == "cuda":
        trials |= {"bf16": (asked, False), "both": (asked, True), "compiled": (compiled, True)}
    return {name: train_resident(run, batches, name, last) for name, (run, last) in trials.items()}


def lstm_seconds(batches: Resident[Batch], device: torch.device, padded: bool) -> float:
    """Seconds of the EHR encoder's forward and backward passes over a batch, each at its second time."""
    encoder, times = EHREncoder().to(device), []
    for batch in batches.batches[:LSTM_BATCHES]:
        hours = fill_up(batch.ehr) if padded else batch.ehr

        def step(hours: PackedSequence = hours) -> None:
            encoder(hours).square().mean().backward()

        step()
        times.append(timed(step, device))
    return float(np.mean(times))


def fill_up(hours: PackedSequence) -> PackedSequence:
    """The same stays, each as long as the longest: what an LSTM reads of a batch that is padded."""
    steps = pad_packed_sequence(hours)[0]
    count, stays = steps.shape[:2]
    return PackedSequence(steps.flatten(0, 1), torch.full((count,), stays))


def timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds that some work takes, the device's too."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def load_pairs(asked: SimCLRConfig) -> Batches:
    """The training batches of simclr_trainer.py."""
    task, store, process = (
        TASKS[asked.task],
        Store.open(asked.data.store),
        distributed.setup(asked.run.device),
    )
    return load_batches(
        store, task.name, task.labels, task.encode, "train", asked.data, asked.run.seed, process
    )


def take_first_step(asked: SimCLRConfig) -> float:
    """Seconds from the start of this process to the end of the first training step."""
    took: list[float] = []

    def score() -> dict[str, float]:
        took.append(seconds_since_start())
        return {}

    run = start_run(asked, "first")
    with closing(load_pairs(asked).epoch(0)) as stream:
        first = Resident([next(stream)])
    stopping = StoppingConfig(monitor="train_loss")
    fit(make_objective(asked), first, None, OptimConfig(epochs=1), stopping, run, save=dict, score=score)
    return took[0]


def seconds_since_start() -> float:
    """Age of this process."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def first_steps(config: StepBenchmark, store: Path) -> tuple[float, float]:
    """Seconds from the start of a program to the end of its first step; and of one that imports torch."""
    asked = ["-m", "benchmarks.step", "--first_step", str(store), "--device", device_of(config)]
    told = subprocess.run([sys.executable, *asked], check=True, capture_output=True, text=True)
    nothing = f"import torch; torch.zeros(1, device={device_of(config)!r})"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", nothing], check=True)
    return float(told.stdout.splitlines()[-1]), time.perf_counter() - began


def measure(config: StepBenchmark, folder: Path) -> tuple[Found, float]:
    """{row: (ours, what it is held against)} of what the device has, and the MiB that training took at most:
    of the GPU's memory, or of the process.
    """
    device = torch.device(device_of(config))
    work = WORK[device.type]
    store = write_store(folder / "store", work)
    asked = settings(config, work, store, "whole")
    first = first_steps(config, store)
    whole = train_from_store(asked)
    held = peak_memory(device)
    batches = Resident.of(load_pairs(asked), epoch=1)
    formats = number_formats(asked, batches, device.type)
    resident = formats["both" if device.type == "cuda" else "channels_last"]
    read, padded_rows, stay_hours = rows_read(batches)
    packed, padded = (lstm_seconds(batches, device, padded) for padded in (False, True))
    found = {
        "end_to_end": (whole["speed"], resident),
        **{name: (value, formats["plain"]) for name, value in formats.items() if name != "plain"},
        "busy": (whole["busy"], 1.0),
        "epoch": (work.pairs / whole["speed"], EPOCH_SECONDS),
        "run": (EPOCHS * whole["period"] / 3600, EPOCHS * EPOCH_SECONDS / 3600),
        "first": first,
        "rows": (read, padded_rows),
        "waste": (read, stay_hours),
        "lstm": (packed, padded),
        "share": (packed, work.batch_size / resident),
    }
    return found, held


def write_store(folder: Path, work: Work) -> Path:
    """A store with the pairs of some work, whose stays have the lengths of ICU stays."""
    draw = np.random.default_rng(0)
    counts = {"train": work.pairs, "val": work.val_pairs, "test": 2}
    return write_random_store(folder, {name: icu_hours(draw, count) for name, count in counts.items()})


def rows_read(batches: Resident[Batch]) -> tuple[float, float, float]:
    """Rows of hours in packed batches, in batches padded to the longest stay, and in the stays."""
    padded = sum(len(batch.row) * len(batch.ehr.batch_sizes) for batch in batches.batches)
    hours = sum(int(batch.hours.sum()) for batch in batches.batches)
    return sum(len(batch.ehr.data) for batch in batches.batches), padded, hours


def peak_memory(device: torch.device) -> float:
    """MiB held at most so far: of the GPU's memory by tensors, or by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MEBIBYTE
    return own_peak()


def device_of(config: StepBenchmark) -> str:
    """ "cuda" or "cpu", what --device means here."""
    return distributed.setup(config.device).device.type


def figures(device: str, found: Found, held: float | None) -> list[Figure]:
    """The rows of a device, "not measured" where nothing was found."""
    work, listed = WORK[device], []
    name = (
        torch.cuda.get_device_name()
        if found and device == "cuda"
        else {"cuda": "a GPU", "cpu": "a CPU"}[device]
    )
    for key, row in ROWS.items():
        if row.on_cpu or device == "cuda":
            ours, other = found.get(key, (None, None))
            told = f"{row.work} ({work.backbone} at {work.image_size}, batch {work.batch_size}, {name})"
            peak = held if key == "end_to_end" else None
            listed.append(Figure(told, row.unit, ours, row.against, other, peak))
    return listed


def main(config: StepBenchmark) -> None:
    """Measure, print the table and add the rows; or take the first step alone."""
    device = device_of(config)
    with tempfile.TemporaryDirectory() as folder:
        if config.first_step:
            asked = settings(config, WORK[device], config.first_step, "first")
            asked = replace(asked, run=replace(asked.run, save_dir=Path(folder)))
            print(take_first_step(asked))
            return
        found, held = measure(config, Path(folder))
    rows = figures(device, found, held)
    if device == "cpu":
        rows = [*figures("cuda", {}, None), *rows]
    record(config.results, "step", ("torch", "torchvision", "numpy"), rows)


if __name__ == "__main__":
    run_cli(main, StepBenchmark)
