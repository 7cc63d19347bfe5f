"""Time an hourly task: batches of whole stays, whose hours are read once, against single samples."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from benchmarks.random_store import icu_hours, write_random_store
from benchmarks.record import RESULTS, Figure, record
from benchmarks.step import speed
from datasets.data_config import DataConfig
from models.encoders import EncoderConfig
from training.classify import classify
from training.classify_config import ClassifierOptim, ClassifyConfig
from utils.cli import run_cli
from utils.distributed import setup
from utils.run_config import RunConfig

EPOCHS = 3  # the first is the warm-up


class Work(NamedTuple):
    """What is trained: image encoder, image size, samples in a batch, stays to train on and others."""

    backbone: str
    image_size: int
    batch_size: int
    stays: int
    other_stays: int


WORK = {"cuda": Work("resnet34", 224, 256, 96, 16), "cpu": Work("resnet18", 32, 64, 16, 4)}


@dataclass(frozen=True)
class HourlyBenchmark:
    """Train decompensation from both modalities on random stays, by whole stays and by samples.

    Stays are as long as those of the open MIMIC-IV demo (benchmarks.random_store.icu_hours), and each has an
    X-ray and a sample at every hour. On a CPU the figure of the GPU is reported as not measured.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto uses a GPU if there is one."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


def samples_per_second(store: Path, work: Work, device: str, by: Literal["stay", "sample"]) -> float:
    """Run run_gpu.py for some epochs; return the training samples a second."""
    run = RunConfig(name=by, save_dir=store.parent / "runs", device=device)  # type: ignore[arg-type]
    classify(
        ClassifyConfig(
            protocol="supervised",
            task="decompensation",
            batch_by=by,
            results_dir=store.parent / "results",
            bootstrap=0,
            encoders=EncoderConfig(vision_backbone=work.backbone),
            data=DataConfig(store=store, batch_size=work.batch_size, image_size=work.image_size),
            optim=ClassifierOptim(epochs=EPOCHS, lr=1e-4),
            run=run,
        )
    )
    return speed(run.save_dir / by)


def measure(work: Work, device: str, folder: Path) -> tuple[float, float]:
    """Return the samples a second by stays and by samples."""
    draw = np.random.default_rng(0)
    counts = {"train": work.stays, "val": work.other_stays, "test": work.other_stays}
    hours = {split: icu_hours(draw, count) for split, count in counts.items()}
    store = write_random_store(folder / "store", hours, hourly=True)
    by_stay, by_sample = (samples_per_second(store, work, device, by) for by in ("stay", "sample"))
    return by_stay, by_sample


def figure(device: str, name: str, found: tuple[float, float] | None) -> Figure:
    """Return the row of a device; `found` is None if it was not measured."""
    backbone, size, batch, *_ = WORK[device]
    text = f"training of decompensation by stays ({backbone} at {size}, batch {batch}, {name})"
    ours, other = found or (None, None)
    return Figure(text, "samples/s", ours, "--batch_by sample", other)


def main(config: HourlyBenchmark) -> None:
    """Measure, print and append the rows."""
    device = setup(config.device).device.type
    with tempfile.TemporaryDirectory() as folder:
        found = measure(WORK[device], device, Path(folder))
    rows = [figure(device, torch.cuda.get_device_name() if device == "cuda" else "a CPU", found)]
    if device == "cpu":
        rows.insert(0, figure("cuda", "a GPU", None))
    record(config.results, "hourly", ("torch", "torchvision", "numpy"), rows)


if __name__ == "__main__":
    run_cli(main, HourlyBenchmark)
