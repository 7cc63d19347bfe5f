"""Time SimCLR's training step: from the store, on batches in memory, and in other number formats."""

from __future__ import annotations

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
from datasets.batches import Batches, load_batches
from datasets.data_config import DataConfig
from datasets.schema import Batch
from datasets.store import Store
from evaluation.results import read_rows
from models.encoders import EncoderConfig, LSTMEncoder, build_encoders
from models.heads import build_heads
from models.objectives.base import PairObjective
from simclr_trainer import PUBLISHED, SimCLRConfig
from tasks import TASKS
from training.early_stopping import StoppingConfig
from training.loop import fit
from training.optim import OptimConfig
from training.pretraining import pretrain
from utils import distributed
from utils.cli import run_cli
from utils.run import start_run
from utils.run_config import RunConfig

MEBIBYTE = 2**20
EPOCHS, EPOCH_SECONDS = 300, 28 * 60  # published; the authors give the seconds for 7,756 pairs
LSTM_BATCHES = 8  # batches on which the LSTM is timed
SAMPLE_SECONDS = 0.1  # between two readings of the GPU's utilization


class Work(NamedTuple):
    """What is trained: image encoder, image size, pairs in a batch, in an epoch, and for validation."""

    backbone: str
    image_size: int
    batch_size: int
    pairs: int
    val_pairs: int


WORK = {"cuda": Work("resnet34", 224, 256, 7756, 882), "cpu": Work("resnet18", 64, 32, 512, 64)}


class Row(NamedTuple):
    """What a figure measures, its unit, what it is compared with, and whether it exists on a CPU."""

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
Measured = dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class StepBenchmark:
    """Time the training step at the published size on a GPU, or at a small size on a CPU.

    Stays are as long as those of the open MIMIC-IV demo (benchmarks.random_store.icu_hours). On a CPU, the
    figures of the GPU are reported as not measured.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto uses a GPU if there is one."""
    data_device: Literal["auto", "cpu", "cuda", "disk"] = "auto"
    """Where to keep the data while training from the store."""
    epochs: int = 3
    """Epochs of each training; the first is the warm-up, and the median of the others counts."""
    first_step: Path | None = None
    """Take only the first step on this store, and print the seconds since the program started; the benchmark
    starts itself with this flag."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""

    def __post_init__(self) -> None:
        """Raise ValueError for too few epochs."""
        if self.epochs < 2:
            raise ValueError(f"--epochs {self.epochs}: the first warms up; use 2 or more")


def settings(config: StepBenchmark, work: Work, store: Path, name: str) -> SimCLRConfig:
    """Return the settings for simclr_trainer.py; its runs are written beside the store."""
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
    """Return the images per second of a run: the median over its epochs without the first."""
    return float(read_rows(folder / "log.csv")["samples_per_second"][1:].median())


def train_from_store(config: SimCLRConfig) -> dict[str, float | None]:
    """Run simclr_trainer.py; return its images/s, seconds between the ends of epochs, and GPU utilization."""
    with gpu_utilization() as seen:
        pretrain(config)
    folder = config.run.save_dir / config.run.name
    ends = [path.stat().st_mtime for path in sorted(folder.glob("*_epoch_*.ckpt"))]
    busy = [utilization for when, utilization in seen if ends[0] < when < ends[-1]]
    return {
        "speed": speed(folder),
        "period": float(np.median(np.diff(ends))),
        "busy": float(np.mean(busy)) if busy else None,
    }


@contextmanager
def gpu_utilization() -> Iterator[list[tuple[float, float]]]:
    """Fill a list with (time, GPU utilization 0 to 1); it stays empty if the driver does not report it."""
    seen: list[tuple[float, float]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            seen.append((time.time(), torch.cuda.utilization() / 100))

    sampler = threading.Thread(target=sample, daemon=True)
    if torch.cuda.is_available() and _reports_utilization():
        sampler.start()
    try:
        yield seen
    finally:
        done.set()


def _reports_utilization() -> bool:
    try:
        torch.cuda.utilization()
    except (ModuleNotFoundError, RuntimeError):  # it needs the package nvidia-ml-py
        return False
    return True


def train_resident(config: SimCLRConfig, batches: Resident[Batch], name: str, channels_last: bool) -> float:
    """Return the images per second of the loop on batches in memory."""
    config = replace(config, run=replace(config.run, name=name))
    run = start_run(config, name)
    objective = make_objective(config)
    # Image encoders choose the layout of the device when they are moved to it.
    layout = torch.channels_last if channels_last else torch.contiguous_format
    objective.to(run.process.device).to(memory_format=layout)
    fit(
        objective,
        batches,
        None,
        config.optim,
        replace(config.stopping, monitor="train_loss"),
        run,
        save=lambda: {"parts": {}, "config": {}},
    )
    return speed(run.folder)


def make_objective(config: SimCLRConfig) -> PairObjective:
    """Make the objective as simclr_trainer.py does."""
    encoders = build_encoders(config.encoders)
    return config.objective_settings().build(encoders, build_heads(encoders, config.width))


def number_formats(config: SimCLRConfig, batches: Resident[Batch], device: str) -> dict[str, float]:
    """Return {format: images per second} on the same batches; "plain" is PyTorch's float32 in eager mode."""
    single = replace(config, run=replace(config.run, precision="float32"))
    compiled = replace(config, run=replace(config.run, compile=True))
    formats = {"plain": (single, False), "channels_last": (single, True)}
    if device == "cuda":
        formats |= {"bf16": (config, False), "both": (config, True), "compiled": (compiled, True)}
    return {name: train_resident(run, batches, name, last) for name, (run, last) in formats.items()}


def lstm_seconds(batches: Resident[Batch], device: torch.device, padded: bool) -> float:
    """Return the mean seconds of the EHR encoder's forward and backward pass, after a warm-up."""
    encoder, times = LSTMEncoder().to(device), []
    for batch in batches.batches[:LSTM_BATCHES]:
        hours = fill_up(batch.ehr) if padded else batch.ehr

        def step(hours: PackedSequence = hours) -> None:
            encoder(hours).square().mean().backward()

        step()
        times.append(timed(step, device))
    return float(np.mean(times))


def fill_up(hours: PackedSequence) -> PackedSequence:
    """Pad all stays to the longest, as an LSTM reads a padded batch."""
    steps = pad_packed_sequence(hours)[0]
    count, stays = steps.shape[:2]
    return PackedSequence(steps.flatten(0, 1), torch.full((count,), stays))


def timed(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that some work takes, on the device too."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def load_pairs(config: SimCLRConfig) -> Batches:
    """Load the training batches of simclr_trainer.py."""
    task = TASKS[config.task]
    store = Store.open(config.data.store)
    process = distributed.setup(config.run.device)
    return load_batches(store, task, "train", config.data, config.run.seed, process)


def take_first_step(config: SimCLRConfig) -> float:
    """Return the seconds from the start of this process to the end of the first training step."""
    seconds: list[float] = []

    def score(epoch: int) -> dict[str, float]:
        seconds.append(seconds_since_start())
        return {}

    run = start_run(config, "first")
    with closing(load_pairs(config).epoch(0)) as stream:
        first = Resident([next(stream)])
    stopping = StoppingConfig(monitor="train_loss")
    fit(make_objective(config), first, None, OptimConfig(epochs=1), stopping, run, save=dict, score=score)
    return seconds[0]


def seconds_since_start() -> float:
    """Return the age of this process."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def first_steps(config: StepBenchmark, store: Path) -> tuple[float, float]:
    """Return the seconds until a program ends its first step, and those of one that only imports torch."""
    words = ["-m", "benchmarks.step", "--first_step", str(store), "--device", device_of(config)]
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
    only_torch = f"import torch; torch.zeros(1, device={device_of(config)!r})"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", only_torch], check=True)
    return float(done.stdout.splitlines()[-1]), time.perf_counter() - start


def measure(config: StepBenchmark, folder: Path) -> tuple[Measured, float]:
    """Measure all figures that exist on the device.

    Returns:
        {row: (ours, what it is compared with)}, and the peak memory of training in MiB, of the GPU or of the
        process.
    """
    device = torch.device(device_of(config))
    work = WORK[device.type]
    store = write_store(folder / "store", work)
    training = settings(config, work, store, "from_store")
    first = first_steps(config, store)
    from_store = train_from_store(training)
    peak_mb = peak_memory(device)
    batches = Resident.of(load_pairs(training), epoch=1)
    formats = number_formats(training, batches, device.type)
    resident = formats["both" if device.type == "cuda" else "plain"]
    read, padded_rows, stay_hours = rows_read(batches)
    packed, padded = (lstm_seconds(batches, device, padded) for padded in (False, True))
    measured = {
        "end_to_end": (from_store["speed"], resident),
        **{name: (value, formats["plain"]) for name, value in formats.items() if name != "plain"},
        "busy": (from_store["busy"], 1.0),
        "epoch": (work.pairs / from_store["speed"], EPOCH_SECONDS),
        "run": (EPOCHS * from_store["period"] / 3600, EPOCHS * EPOCH_SECONDS / 3600),
        "first": first,
        "rows": (read, padded_rows),
        "waste": (read, stay_hours),
        "lstm": (packed, padded),
        "share": (packed, work.batch_size / resident),
    }
    return measured, peak_mb


def write_store(folder: Path, work: Work) -> Path:
    """Write a store with the pairs of some work, whose stays are as long as ICU stays."""
    rng = np.random.default_rng(0)
    counts = {"train": work.pairs, "val": work.val_pairs, "test": 2}
    return write_random_store(folder, {name: icu_hours(rng, count) for name, count in counts.items()})


def rows_read(batches: Resident[Batch]) -> tuple[float, float, float]:
    """Count the rows of hours in packed batches, in batches padded to the longest stay, and in the stays."""
    padded = sum(len(batch.row) * len(batch.ehr.batch_sizes) for batch in batches.batches)
    hours = sum(int(batch.hours.sum()) for batch in batches.batches)
    return sum(len(batch.ehr.data) for batch in batches.batches), padded, hours


def peak_memory(device: torch.device) -> float:
    """Return the peak memory so far in MiB: of the tensors on the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MEBIBYTE
    return own_peak()


def device_of(config: StepBenchmark) -> str:
    """Return "cuda" or "cpu", what --device means on this machine."""
    return distributed.setup(config.device).device.type


def figures(device: str, measured: Measured, peak_mb: float | None) -> list[Figure]:
    """Return the figures of a device; those that are missing in `measured` are "not measured"."""
    work = WORK[device]
    name = {"cuda": "a GPU", "cpu": "a CPU"}[device]
    if measured and device == "cuda":
        name = torch.cuda.get_device_name()
    made = []
    for key, row in ROWS.items():
        if row.on_cpu or device == "cuda":
            ours, other = measured.get(key, (None, None))
            text = f"{row.work} ({work.backbone} at {work.image_size}, batch {work.batch_size}, {name})"
            peak = peak_mb if key == "end_to_end" else None
            made.append(Figure(text, row.unit, ours, row.against, other, peak))
    return made


def main(config: StepBenchmark) -> None:
    """Measure, print and append the rows; or take only the first step."""
    device = device_of(config)
    with tempfile.TemporaryDirectory() as folder:
        if config.first_step:
            training = settings(config, WORK[device], config.first_step, "first")
            training = replace(training, run=replace(training.run, save_dir=Path(folder)))
            print(take_first_step(training))
            return
        measured, peak_mb = measure(config, Path(folder))
    rows = figures(device, measured, peak_mb)
    if device == "cpu":
        rows = [*figures("cuda", {}, None), *rows]
    record(config.results, "step", ("torch", "torchvision", "numpy"), rows)


if __name__ == "__main__":
    run_cli(main, StepBenchmark)
