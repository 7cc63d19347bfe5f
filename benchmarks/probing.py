"""What probing an epoch takes on features that are at hand, in a process of its own: `.growth` starts it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import child
from datasets.batches import DataConfig, Samples, load_samples
from datasets.features import FeatureBatches
from datasets.schema import SPLITS
from datasets.store import Store
from evaluation import metrics
from evaluation.scoring import compute_scores
from tasks import TASKS, Task
from training.probe import ProbeConfig, train_probe
from utils.cli import run_cli

BOTH_ENCODERS = 128 + 512  # features of the default LSTM and ResNet-34


@dataclass(frozen=True)
class Probing:
    """Train a linear probe on made-up features of a store's samples, as `epoch_evaluation.py` does with those
    of a checkpoint; prints its seconds.
    """

    task: str = "phenotyping"
    """Task that is probed."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(data_pairs="ehr_all", batch_size=512))


def made_up(samples: Samples, batch_size: int, train: bool) -> FeatureBatches:
    """Normal features [n, 640] of samples, and their own labels."""
    features = torch.randn(len(samples), BOTH_ENCODERS)
    return FeatureBatches(features, torch.from_numpy(samples.labels), batch_size, train=train)


def validated(task: Task, truth: Samples, probability: Tensor) -> float:
    """The task's monitor."""
    return metrics.headline(compute_scores(task, truth.labels, probability.numpy()))[task.monitor]


def main(config: Probing) -> None:
    """Probe, and tell how long it took from the features on."""
    task, store, data = TASKS[config.task], Store.open(config.data.store), config.data
    samples = {
        split: load_samples(store, task.name, task.labels, task.encode, split, data, 0) for split in SPLITS
    }
    torch.manual_seed(0)
    batches = {split: made_up(part, data.batch_size, split == "train") for split, part in samples.items()}
    began = time.perf_counter()
    score = partial(validated, task, samples["val"])
    found = train_probe(task.kind, task.outputs, batches, config.probe, 0, score)
    for split, part in samples.items():
        score(task, part.labels, found[split].numpy())
    print(json.dumps(time.perf_counter() - began))


def run(*flags: str | Path) -> tuple[float, child.Ended]:
    """Do it in a process of its own; ValueError if it fails there."""
    ended = child.run_module("benchmarks.probing", *flags)
    return float(json.loads(ended.output.splitlines()[-1])), ended


if __name__ == "__main__":
    run_cli(main, Probing)
