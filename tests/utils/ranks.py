"""Run a function on several gloo processes, as torchrun would."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing as mp

from utils import distributed
from utils.distributed import Process

# The server that the processes are forked from imports these once; it has no threads and no CUDA context.
PRELOADED = ["torch", "torchvision", "models.objectives", "training.loop", "training.predict"]


def run_on_ranks(work: Callable[[Process, Path], object], folder: Path, world: int = 2) -> list[object]:
    """Return what `work(process, folder)` returns on each rank; `work` must be a module's function."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # the system chooses a free port
        port = server.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(_start, (world, port, work, folder), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)]


def _start(rank: int, world: int, port: int, work: Callable[[Process, Path], object], folder: Path) -> None:
    torch.set_num_threads(1)
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "MASTER_PORT": port,
        "MASTER_ADDR": "127.0.0.1",
    }
    os.environ.update({name: str(value) for name, value in names.items()})
    process = distributed.setup("cpu")
    torch.save(work(process, folder), folder / f"rank{rank}.pt")
    distributed.shutdown()
