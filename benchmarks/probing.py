"""Time the probes of an epoch on given features, in a process of its own that benchmarks.growth starts."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import child
from datasets.data_config import DataConfig
from datasets.features import FeatureBatches
from datasets.samples import Samples, load_samples
from datasets.schema import SPLITS
from datasets.store import Store
from evaluation.scoring import compute_scores, monitor_score
from tasks import TASKS, Task
from training.probe import train_probe
from training.select_epoch_config import ProbeConfig
from utils.cli import run_cli

BOTH_ENCODERS = 128 + 512  # features of the default LSTM and ResNet-34


@dataclass(frozen=True)
class Probing:
    """Train a linear probe on random features of a store's samples, and print the seconds that it takes.

    `epoch_evaluation.py` does the same with the features of a checkpoint.
    """

    task: str = "phenotyping"
    """Task of the probe."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(data_pairs="ehr_all", batch_size=512))


def random_features(samples: Samples, batch_size: int, train: bool) -> FeatureBatches:
    """Return normally distributed features [n, 640] with the labels of the samples."""
    features = torch.randn(len(samples), BOTH_ENCODERS)
    return FeatureBatches(features, torch.from_numpy(samples.labels), batch_size, train=train)


def validation_score(task: Task, labels: np.ndarray, probabilities: Tensor) -> float:
    """Return the task's monitor."""
    return monitor_score(task, labels, probabilities.numpy())


def main(config: Probing) -> None:
    """Train the probe, score it on every split, and print the seconds that both take."""
    task, store, data = TASKS[config.task], Store.open(config.data.store), config.data
    samples = {split: load_samples(store, task, split, data, 0) for split in SPLITS}
    torch.manual_seed(0)
    batches = {
        split: random_features(part, data.batch_size, split == "train") for split, part in samples.items()
    }
    start = time.perf_counter()
    score = partial(validation_score, task, samples["val"].labels)
    probabilities = train_probe(task.kind, task.outputs, batches, config.probe, 0, score)
    for split, part in samples.items():
        compute_scores(task, part.labels, probabilities[split].numpy())
    print(json.dumps(time.perf_counter() - start))


def run(*flags: str | Path) -> tuple[float, child.Ended]:
    """Run this benchmark in a process of its own; ValueError if it fails there."""
    ended = child.run_module("benchmarks.probing", *flags)
    return float(json.loads(ended.output.splitlines()[-1])), ended


if __name__ == "__main__":
    run_cli(main, Probing)
