"""Evaluating a checkpoint for several tasks: features once for all of them, against anew for each."""

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
from datasets.batches import Batches, DataConfig, Samples
from datasets.schema import SPLITS
from datasets.store import Store
from datasets.unique_inputs import UniqueInputs
from models.classifier import ClassifierConfig, start_classifier
from models.encoders import EncoderConfig, build_encoders
from models.fusion import FUSIONS, LinearFusion
from models.heads import build_heads
from models.pretraining import Pretraining, pretraining_checkpoint
from training.features import SharedFeatures
from training.predict import predict
from training.probe import ProbeConfig
from training.provenance import training_subjects
from training.select_epoch import (
    EpochEvaluationConfig,
    Evaluation,
    features_of,
    open_evaluation,
    probe_task,
    read_samples,
)
from utils import checkpoint
from utils.cli import run_cli

SHARES = {"train": 0.72, "val": 0.08, "test": 0.2}


@dataclass(frozen=True)
class EpochEvaluationBenchmark:
    """Time epoch_evaluation.py on one checkpoint of random weights, on stays as long as those of the demo.

    The published way computes features anew for each task, under random views; it is timed by our own batches
    and encoders, so that only what is computed differs.
    """

    stays: int = 400
    """Stays, each with an X-ray and a sample of every task."""
    task: str = "phenotyping,in-hospital-mortality"
    """Tasks to probe."""
    vision_backbone: str = "resnet18"
    """Image encoder."""
    image_size: int = 64
    """Side of the images, in pixels."""
    probe_epochs: int = 100
    """Passes of a probe over its features."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    results: Path = RESULTS
    """File that the measured rows are added to."""


def prepare(config: EpochEvaluationBenchmark, folder: Path) -> EpochEvaluationConfig:
    """A store and a pretraining of one epoch, and what asks to evaluate it."""
    draw = np.random.default_rng(0)
    hours = {name: icu_hours(draw, round(share * config.stays)) for name, share in SHARES.items()}
    store = write_random_store(folder / "store", hours)
    shape = EncoderConfig(vision_backbone=config.vision_backbone)
    torch.manual_seed(0)
    encoders = build_encoders(shape)
    content = pretraining_checkpoint(Pretraining("simclr", shape), encoders, build_heads(encoders, 1))
    subjects = training_subjects(Store.open(store))
    checkpoint.save(folder / "run/run_epoch_00.ckpt", content | {"epoch": 0, "subjects": subjects})
    return EpochEvaluationConfig(
        run_dir=folder / "run",
        task=config.task,
        device=config.device,
        probe=ProbeConfig(epochs=config.probe_epochs),
        data=DataConfig(store=store, image_size=config.image_size, batch_size=128),
    )


class HeldRows(NamedTuple):
    """UniqueInputs whose batches are on the device already."""

    batches: Resident
    places: Callable[[Hashable], Tensor]


def measure(config: EpochEvaluationBenchmark, folder: Path) -> list[Figure]:
    """Seconds of the evaluation of one checkpoint, and of its parts."""
    asked = open_evaluation(prepare(config, folder))
    path, modalities = asked.checkpoints[0], FUSIONS[asked.config.fusion].modalities
    samples = {
        (task.name, split): read_samples(asked, task, split) for task in asked.tasks for split in SPLITS
    }
    rows = {
        name: UniqueInputs(asked.store, samples, name, asked.config.data, asked.process)
        for name in modalities
    }
    features = features_of(asked, path, rows)  # the first time is slower
    ours = timed(lambda: features_of(asked, path, rows), asked)
    probes = timed(lambda: [probe_task(asked, 0, task, features, samples) for task in asked.tasks], asked)
    fusion = load_encoders(asked)
    anew = [under_random_views(asked, part) for part in samples.values()]
    published = timed(lambda: [predict(fusion.features, batches) for batches in anew], asked)
    held = {name: HeldRows(Resident.of(part.batches), part.places) for name, part in rows.items()}
    limit = timed(lambda: SharedFeatures(fusion, held, asked.process.device), asked)
    about = (
        f"{config.stays} stays x {len(asked.tasks)} tasks, {config.vision_backbone} at {config.image_size}"
    )
    return [
        Figure(
            f"a checkpoint, {about}",
            "s",
            ours + probes,
            "features anew a task",
            published + probes,
            own_peak(),
        ),
        Figure(f"its features, {about}", "s", ours, "forward passes alone", limit),
        Figure(
            f"its probes of {config.probe_epochs} epochs, {about}", "s", probes, "all of it", ours + probes
        ),
    ]


def timed(work: Callable[[], object], asked: Evaluation) -> float:
    """Seconds that some work takes, those of the device too."""
    began = time.perf_counter()
    work()
    if asked.process.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def load_encoders(asked: Evaluation) -> LinearFusion:
    """The checkpoint's encoders under a linear layer, in eval mode."""
    wanted = ClassifierConfig(asked.config.fusion, "binary", 1, EncoderConfig())
    sources = dict.fromkeys(FUSIONS[asked.config.fusion].modalities, str(asked.checkpoints[0]))
    return start_classifier(wanted, sources)[0].fusion.to(asked.process.device).eval()


def under_random_views(asked: Evaluation, samples: Samples) -> Batches:
    """The batches of one task's split, as features are computed where tasks share none."""
    return Batches(asked.store, samples, asked.config.data, seed=0, device=asked.process.device, train=True)


def main(config: EpochEvaluationBenchmark) -> None:
    """Measure, print the table and add the rows."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(config, Path(folder))
    record(config.results, "epoch_evaluation", ("torch", "torchvision", "numpy"), found)


if __name__ == "__main__":
    run_cli(main, EpochEvaluationBenchmark)
