"""Distributed training: the same calls under `python`, which starts one process, and under `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from utils.machine import keep_freed_memory
from utils.run_config import Device

DEVICES = get_args(Device)
DEVICE_FILES = Path("/dev")  # with nvidia0 and so on, if there is a driver
MEMORY_OF_STEP = 2**30  # bytes of activations that a CPU keeps from step to step
TIMEOUT = timedelta(hours=2)  # rank 0 may write large files while the others wait


@dataclass(frozen=True)
class Process:
    """This process: its rank among `world` processes, its rank on this machine, and its device."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def setup(device: str = "auto") -> Process:
    """Join the processes that torchrun started, if it did; nccl on cuda, gloo on cpu.

    On a CPU, the activations of a step are kept for those of the next, see `keep_freed_memory`.

    Raises:
        ValueError: `device` is not one of DEVICES, or this process has no such device, or auto would take the
            CPU although the machine or the job has a GPU.
    """
    kind = _kind_of(device)
    rank, world, local_rank = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if kind == "mps" and world > 1:
        raise ValueError("--device mps: an Apple machine has one GPU; start without torchrun, or on cpu")
    if kind == "cuda":
        if local_rank >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ValueError(
                f"there is no GPU for process {local_rank}; use torchrun --nproc-per-node {count}"
            )
        torch.cuda.set_device(local_rank)
    if kind == "cpu":
        keep_freed_memory(MEMORY_OF_STEP)
    torch_device = torch.device("cuda", local_rank) if kind == "cuda" else torch.device(kind)
    if world > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT, device_id=torch_device if kind == "cuda" else None)
    return Process(rank, max(world, 1), local_rank, torch_device)


def _kind_of(device: str) -> str:
    """Return cpu, cuda or mps; `auto` never takes mps, which lacks operators and float64."""
    if device not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}, not {device!r}")
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    if device == "cuda" or (device == "auto" and _has_gpu()):
        raise ValueError(
            f"--device {device}: PyTorch {torch.__version__} cannot use a GPU here ({_why_no_gpu()}); update "
            "its driver, install a CUDA build of torch that fits the driver, or use --device cpu"
        )
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: PyTorch sees no GPU of an Apple machine; use --device cpu")
    return "mps" if device == "mps" else "cpu"


def _has_gpu() -> bool:
    """Return whether the machine has an NVIDIA GPU or the SLURM job asked for one, and nothing hides it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return False
    return bool(os.environ.get("SLURM_JOB_GPUS") or list(DEVICE_FILES.glob("nvidia[0-9]*")))


def _why_no_gpu() -> str:
    """Return PyTorch's reason, such as a driver that is too old."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # of a build with and without CUDA
        return str(error).partition(". ")[0].strip()
    return "it sees no GPU"


def shutdown() -> None:
    """Leave the process group; does nothing in a single process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's rank, 0 in a single process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes; does nothing in a single process."""
    if world() > 1:
        dist.barrier()


def all_reduce_sum(value: float) -> float:
    """Return the sum of a number over all processes, the same on each."""
    if world() == 1:
        return float(value)
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item()


def broadcast_value(value: float) -> float:
    """Return the main process's number on every process."""
    return all_reduce_sum(value if is_main() else 0.0)


def raise_together(work: Callable[[], None]) -> None:
    """Do work on the main process; if it raises ValueError or OSError, raise that error on all processes."""
    error: Exception | None = None
    if is_main():
        try:
            work()
        except (ValueError, OSError) as raised:
            error = raised
    if any_flag(error is not None):
        raise error or ValueError("process 0 has stopped; its message says why")


def any_flag(flag: bool) -> bool:
    """Return, on every process, whether the flag is true on any."""
    return all_reduce_sum(float(flag)) > 0


def gather_arrays(array: np.ndarray) -> np.ndarray:
    """Concatenate [n_r, ...] of all processes in the order of ranks; empty arrays may have another shape."""
    if world() == 1:
        return array
    arrays = [array] * world()
    dist.all_gather_object(arrays, array)
    return np.concatenate([part for part in arrays if len(part)] or [array])


def gather_with_gradient(part: Tensor) -> Tensor:
    """Concatenate [b_r, ...] of all processes in the order of ranks -> [sum of b_r, ...]; b_r may be 0.

    The gradient of a part is the sum of all ranks' gradients for it. So a loss of the gathered rows, after
    DistributedDataParallel averages, has the parameter gradients of one process with the global batch.
    """
    if world() == 1:
        return part
    sizes = [torch.zeros((), dtype=torch.int64) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor(len(part)))  # on CPUs, so that no process waits for its GPU
    before = part.new_zeros(int(sum(sizes[: rank()])), *part.shape[1:])
    after = part.new_zeros(int(sum(sizes[rank() + 1 :])), *part.shape[1:])
    return sum_with_gradient(torch.cat([before, part, after]))  # exact: all other parts are 0 in these rows


def sum_with_gradient(part: Tensor) -> Tensor:
    """Sum a tensor over all processes; its gradient is the sum of their gradients."""
    total: Tensor = part if world() == 1 else all_reduce(part)
    return total
