"""What reading a store takes, in a process of its own: `benchmarks.batches` and `.growth` start it."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks import child
from benchmarks.random_store import LONG_SIDE
from datasets.augment import random_views, warp
from datasets.batches import Batches
from datasets.data_config import DataConfig
from datasets.image_batch import ImageBatch
from datasets.samples import load_samples
from datasets.schema import IMAGE_SIZE, Batch
from datasets.store import Store
from tasks import TASKS
from utils.cli import run_cli

MEGABYTE = 2**20
# Arrow's own allocator reserves a gibibyte of addresses at its first use and fills little of it; RLIMIT_DATA
# counts addresses.
PLAIN_ARROW = {"ARROW_DEFAULT_MEMORY_POOL": "system"}


@dataclass(frozen=True)
class Reading:
    """Open a store and read epochs of its training batches; prints one line of JSON."""

    task: str = "phenotyping"
    """Task whose training samples are read."""
    epochs: int = 3
    """Epochs that are timed; the fastest counts."""
    compared: bool = True
    """Whether copying as many bytes and making as many views are timed too; they take memory of their own."""
    spare_mb: int = 0
    """Limit of the memory that is no file's (RLIMIT_DATA), beyond what Python and PyTorch hold at the start;
    0: none."""
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True)
class Read:
    """What reading a store costs, and what is compared with it.

    Seconds of opening, of loading samples (and bringing data into memory) and of an epoch; the contents of an
    epoch; the peak memory until then, in MiB; seconds of copying as many bytes of hours within memory, and of
    making as many views of images that are in memory.
    """

    opened: float
    loaded: float
    epoch: float
    samples: int
    hours: int
    images: int
    peak_mb: float
    copied: float
    viewed: float


def limit_memory(spare_mb: int) -> None:
    """Let this process have `spare_mb` MiB more than now: mapped files are not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + spare_mb * MEGABYTE,) * 2)


def sizes(batches: Iterator[Batch]) -> list[tuple[int, int, int]]:
    """Yield the number of samples, hours and images of each batch."""
    return [
        (
            len(batch.row),
            0 if batch.ehr is None else len(batch.ehr.data),
            0 if batch.cxr is None else len(batch.cxr),
        )
        for batch in batches
    ]


def copying(hours: list[int], width: int) -> float:
    """Seconds of copying consecutive float32 rows [hours, width] of each batch into a tensor of its own."""
    source = torch.ones(sum(hours), width)
    began = time.perf_counter()
    for part in source.split(hours):
        torch.empty_like(part).copy_(part)
    return time.perf_counter() - began


def viewing(images: list[int], data: DataConfig) -> float:
    """Seconds of making views of as many images of one batch that is at hand."""
    at_hand = ImageBatch.of(torch.zeros(max(images), LONG_SIDE, IMAGE_SIZE, dtype=torch.uint8))
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for count in images:
        part = at_hand.take(slice(count))
        warp(part, random_views(rng, part.aspect, data.transforms_cxr), data.image_size)
    return time.perf_counter() - began


def read(config: Reading) -> Read:
    """Open, load and read, timed."""
    task, data = TASKS[config.task], config.data
    began = time.perf_counter()
    store = Store.open(data.store)
    opened = time.perf_counter()
    samples = load_samples(store, task, "train", data, 0)
    batches = Batches(store, samples, data, seed=0, device=torch.device("cpu"), train=True)
    loaded, times = time.perf_counter(), []
    for epoch in range(config.epochs):
        start = time.perf_counter()
        found = sizes(batches.epoch(epoch))
        times.append(time.perf_counter() - start)
    rows, hours, images = (list(part) for part in zip(*found, strict=True))
    return Read(
        opened - began,
        loaded - opened,
        min(times),
        sum(rows),
        sum(hours),
        sum(images),
        child.own_peak(),
        copying(hours, store.hourly.shape[1]) if config.compared and any(hours) else 0.0,
        viewing(images, data) if config.compared and any(images) else 0.0,
    )


def main(config: Reading) -> None:
    """Read and tell."""
    if config.spare_mb:
        limit_memory(config.spare_mb)
    print(json.dumps(vars(read(config))))


def run(*flags: str | Path) -> tuple[Read, child.Ended]:
    """Do it in a process of its own; ValueError if it fails there."""
    ended = child.run_module("benchmarks.reading", *flags, environment=PLAIN_ARROW)
    return Read(**json.loads(ended.output.splitlines()[-1])), ended


if __name__ == "__main__":
    run_cli(main, Reading)
