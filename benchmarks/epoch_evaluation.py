"""Probe one checkpoint for several tasks: features computed once for all tasks, or anew for each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.child import own_peak
from benchmarks.random_store import icu_hours, write_random_store
from benchmarks.record import RESULTS, Figure, record
from benchmarks.resident import Resident
from datasets.batches import Batches
from datasets.data_config import DataConfig
from datasets.samples import Samples
from datasets.schema import Batch
from datasets.store import Store
from models.classifier import ClassifierConfig, start_classifier
from models.encoders import EncoderConfig, build_encoders
from models.fusion import LinearFusion
from models.heads import build_heads
from models.pretraining import Pretraining, pretraining_checkpoint
from training.features import SharedFeatures
from training.predict import predict
from training.provenance import lineage
from training.select_epoch import (
    EpochSelection,
    EpochSelectionConfig,
    compute_features,
    load_sample_sets,
    open_selection,
    probe_task,
    unique_inputs,
)
from training.select_epoch_config import ProbeConfig
from utils import checkpoint
from utils.cli import run_cli

SPLIT_FRACTIONS = {"train": 0.72, "val": 0.08, "test": 0.2}


@dataclass(frozen=True)
class EpochEvaluationBenchmark:
    """Time epoch_evaluation.py on one checkpoint of random weights and stays as long as those of the demo.

    The published code computes the features anew for each task, under random views. It is timed with our
    batches and encoders, so that only the amount of computation differs.
    """

    stays: int = 400
    """Stays, each with an X-ray and a sample of every task."""
    task: str = "phenotyping,in-hospital-mortality"
    """Tasks to probe."""
    vision_backbone: str = "resnet18"
    """Backbone of the image encoder."""
    image_size: int = 64
    """Side of the images in pixels."""
    probe_epochs: int = 100
    """Epochs of each probe."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on."""
    results: Path = RESULTS
    """File to which the measurements are appended."""


class CachedInputs(NamedTuple):
    """UniqueInputs whose batches are on the device already."""

    batches: Resident[Batch]
    rows_of: Callable[[Hashable], Tensor]


def main(config: EpochEvaluationBenchmark) -> None:
    """Measure, print the table and append the rows."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(config, Path(folder))
    record(config.results, "epoch_evaluation", ("torch", "torchvision", "numpy"), figures)


def measure(config: EpochEvaluationBenchmark, folder: Path) -> list[Figure]:
    """Measure the seconds that the evaluation of one checkpoint and its parts take."""
    job = open_selection(write_inputs(config, folder))
    device = job.process.device
    samples = load_sample_sets(job, job.tasks)
    inputs = unique_inputs(job, samples)
    (path,) = job.checkpoints.values()
    features = compute_features(job, path, inputs)  # the first call is slower
    ours = timed(device, lambda: compute_features(job, path, inputs))
    probes = timed(device, lambda: [probe_task(job, task, 0, features, samples) for task in job.tasks])
    fusion = load_encoders(job)
    augmented = [augmented_batches(job, part) for part in samples.values()]
    published = timed(device, lambda: [predict(fusion.features, batches) for batches in augmented])
    cached = {name: CachedInputs(Resident.of(part.batches), part.rows_of) for name, part in inputs.items()}
    forward = timed(device, lambda: SharedFeatures(fusion, cached, device))
    work = f"{config.stays} stays x {len(job.tasks)} tasks, {config.vision_backbone} at {config.image_size}"
    total = ours + probes
    return [
        Figure(f"a checkpoint, {work}", "s", total, "features anew a task", published + probes, own_peak()),
        Figure(f"its features, {work}", "s", ours, "forward passes alone", forward),
        Figure(f"its probes of {config.probe_epochs} epochs, {work}", "s", probes, "all of it", total),
    ]


def write_inputs(config: EpochEvaluationBenchmark, folder: Path) -> EpochSelectionConfig:
    """Write a store and a pretraining of one epoch; return the settings that evaluate it."""
    rng = np.random.default_rng(0)
    hours = {split: icu_hours(rng, round(part * config.stays)) for split, part in SPLIT_FRACTIONS.items()}
    store = write_random_store(folder / "store", hours)
    encoder_config = EncoderConfig(vision_backbone=config.vision_backbone)
    torch.manual_seed(0)
    encoders = build_encoders(encoder_config)
    heads = build_heads(encoders, 1)
    content = pretraining_checkpoint(Pretraining("simclr", encoder_config), encoders, heads)
    known = lineage(Store.open(store))
    checkpoint.save(folder / "run/run_epoch_01.ckpt", {**content, **known, "epoch": 1})
    return EpochSelectionConfig(
        run_dir=folder / "run",
        task=config.task,
        device=config.device,
        probe=ProbeConfig(epochs=config.probe_epochs),
        data=DataConfig(store=store, image_size=config.image_size, batch_size=128),
    )


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Return the seconds that some work takes on the CPU and the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def load_encoders(job: EpochSelection) -> LinearFusion:
    """Load the checkpoint's encoders under a linear layer, in eval mode."""
    config = ClassifierConfig(job.config.fusion, "binary", 1, EncoderConfig())
    path = str(next(iter(job.checkpoints.values())))
    classifier, _ = start_classifier(config, {"ehr": path, "cxr": path})
    fusion = classifier.fusion.to(job.process.device).eval()
    assert isinstance(fusion, LinearFusion)
    return fusion


def augmented_batches(job: EpochSelection, samples: Samples) -> Batches:
    """Return batches under random views, from which the published code computes features."""
    return Batches(job.store, samples, job.config.data, seed=0, device=job.process.device, train=True)


if __name__ == "__main__":
    run_cli(main, EpochEvaluationBenchmark)
