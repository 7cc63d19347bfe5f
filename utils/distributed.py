"""One process or many: the same calls under `python` and under `torchrun`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(hours=2)  # rank 0 may write large files while the others wait


@dataclass(frozen=True)
class Process:
    """This process: its rank among `world`, its rank on this machine, and the device that it computes on."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def setup(device: str = "auto") -> Process:
    """Joins the processes that torchrun started (nccl on cuda, gloo on cpu), or is alone under plain python.

    `device`: "auto" (cuda if there is any), "cpu" or "cuda". ValueError if cuda is asked for and missing, or
    if torchrun started more processes than the machine has GPUs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu or cuda, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU; use --device cpu, or a CUDA build of torch")
    kind = "cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda"
    rank, world, local_rank = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if kind == "cuda":
        if local_rank >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ValueError(f"process {local_rank} has no GPU here; use torchrun --nproc-per-node {count}")
        torch.cuda.set_device(local_rank)
    place = torch.device("cuda", local_rank) if kind == "cuda" else torch.device("cpu")
    if world > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT, device_id=place if kind == "cuda" else None)
    return Process(rank, max(world, 1), local_rank, place)


def shutdown() -> None:
    """Leaves the group; nothing if alone."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's place, 0 if alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes, 1 if alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True on the one process that writes and prints."""
    return rank() == 0


def barrier() -> None:
    """Waits for all processes; nothing if alone."""
    if world() > 1:
        dist.barrier()


def all_reduce_sum(value: float) -> float:
    """Sum of a number over all processes, the same on each."""
    if world() == 1:
        return float(value)
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item()


def all_reduce_mean(value: float) -> float:
    """Mean of a number over all processes, each counted once."""
    return all_reduce_sum(value) / world()


def all_reduce_max(value: float) -> float:
    """Largest of a number over all processes, the same on each."""
    if world() == 1:
        return float(value)
    largest = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.item()


def broadcast_value(value: float) -> float:
    """The main process's number, on every process."""
    return all_reduce_sum(value if is_main() else 0.0)


def broadcast_flag(flag: bool) -> bool:
    """The main process's decision, on every process."""
    return bool(broadcast_value(float(flag)))


def any_flag(flag: bool) -> bool:
    """True on every process if it is true on one."""
    return all_reduce_sum(float(flag)) > 0


def gather_arrays(array: np.ndarray) -> np.ndarray:
    """[n_r, ...] of each process -> [sum of n_r, ...] in rank order, the same on all; parts may be empty."""
    if world() == 1:
        return array
    parts = [array] * world()
    dist.all_gather_object(parts, array)
    return np.concatenate(parts)


def gather_with_gradient(part: Tensor) -> Tensor:
    """[b_r, ...] of each process -> [sum of b_r, ...] in rank order, with gradient; unequal or empty too.

    The gradient of a part is the sum over ranks of their gradients for it, as if one process had held all of
    them. So a loss that every rank computes from the gathered rows is the loss of the global batch, and
    after DistributedDataParallel's average over ranks its parameter gradients are those of one process.
    """
    gathered: Tensor = part if world() == 1 else _Gather.apply(part)  # type: ignore[no-untyped-call]
    return gathered


class _Place(torch.autograd.function.FunctionCtx):
    """Where the rows of this process stand among those of all."""

    start: int
    length: int


def sum_with_gradient(part: Tensor) -> Tensor:
    """The sum of a tensor over all processes, the same on each; its gradient, as `gather_with_gradient`'s."""
    total: Tensor = part if world() == 1 else _Sum.apply(part)  # type: ignore[no-untyped-call]
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Place, part: Tensor) -> Tensor:
        sizes = [torch.zeros((), dtype=torch.int64) for _ in range(world())]
        dist.all_gather(sizes, torch.tensor(len(part)))  # between hosts: no wait for the GPU's work
        counts = torch.stack(sizes).tolist()
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.start, ctx.length = sum(counts[: rank()]), len(part)
        return torch.cat([rows[:count] for rows, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: _Place, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.length]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
