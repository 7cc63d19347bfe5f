"""A tiny model, its batches, a run and a full disk, for tests."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from utils.distributed import Process
from utils.run import Run
from utils.run_config import RunConfig


class ToyBatch(NamedTuple):
    """x [b, 3], y [b, 1], row [b]."""

    x: Tensor
    y: Tensor
    row: Tensor


class ToyBatches:
    """`n` samples in global batches; a rank takes a slice of each. Calls `at(epoch, step)` before a batch."""

    def __init__(
        self,
        n: int = 20,
        batch_size: int = 6,
        process: Process | None = None,
        train: bool = True,
        dtype: torch.dtype = torch.float32,
        at: Callable[[int, int], None] = lambda epoch, step: None,
    ) -> None:
        source = np.random.default_rng(1)
        self.x = torch.tensor(source.normal(size=(n, 3)), dtype=dtype)
        self.y = self.x.sum(1, keepdim=True) ** 2
        self.batch_size, self.process, self.shuffled, self.at = batch_size, process or Process(), train, at

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[ToyBatch, None, None]:
        """Yield the batches of an epoch from `start` on."""
        order = np.arange(len(self.x))
        if self.shuffled:
            order = np.random.default_rng(epoch).permutation(order)
        for step in range(start, len(self)):
            self.at(epoch, step)
            rows = order[step * self.batch_size :][: self.batch_size]
            row = torch.from_numpy(np.array_split(rows, self.process.world)[self.process.rank])
            yield ToyBatch(self.x[row], self.y[row], row)


class ToyObjective(nn.Module):
    """Squared error of a two-layer network with dropout."""

    def __init__(self, dropout: float = 0.5, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)).to(dtype)

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        """ToyBatch -> {"loss", "error"}."""
        gap = self.net(batch.x) - batch.y
        return {"loss": gap.square().mean(), "error": gap.abs().mean()}

    def content(self) -> dict[str, object]:
        """What a checkpoint holds."""
        return {"parts": {"net": self.net.state_dict()}, "config": {}}


def toy_run(folder: Path, process: Process | None = None, **settings: bool | float | str) -> Run:
    """Return a run called "toy" in `folder`."""
    (folder / "toy").mkdir(parents=True, exist_ok=True)
    return Run(RunConfig(save_dir=folder, **settings), "toy", folder / "toy", process or Process())


def send(number: signal.Signals, epoch: int, step: int) -> Callable[[int, int], None]:
    """Return a hook that sends this process a signal at a step."""

    def hook(now_epoch: int, now_step: int) -> None:
        if (now_epoch, now_step) == (epoch, step):
            os.kill(os.getpid(), number)

    return hook


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Act as a disk on which no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def same(a: object, b: object) -> bool:
    """Compare nested dicts and lists of tensors and numbers bit for bit, except seconds."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "seconds")
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)
