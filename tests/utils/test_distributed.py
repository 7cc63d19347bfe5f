"""Collectives mean the same alone and together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.utils.ranks import run_on_ranks
from utils import distributed
from utils.distributed import Process

SPLITS = ([3, 2], [4, 0], [1, 1])


def contrast(z: Tensor) -> Tensor:
    return (z @ z.T).logsumexp(1).mean()


def rows(size: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(size).normal(size=(size, 3)))


def collect(process: Process, folder: Path) -> dict[str, object]:
    first = process.rank == 0
    return {
        "sum": distributed.all_reduce_sum(process.rank + 1.5),
        "any": (distributed.any_flag(not first), distributed.any_flag(False)),
        "broadcast": distributed.broadcast_value(process.rank + 7.0),
        "arrays": distributed.gather_arrays(np.full((2 * process.rank, 2 * process.rank), process.rank)),
        "main": distributed.is_main(),
    }


def gather(process: Process, folder: Path) -> list[tuple[Tensor, Tensor]]:
    """For each split, return the gathered rows, and the part's gradient averaged as DDP averages."""
    results = []
    for sizes in SPLITS:
        part = rows(sum(sizes)).split(sizes)[process.rank].clone().requires_grad_()
        gathered = distributed.gather_with_gradient(part)
        contrast(gathered).backward()
        results.append((gathered.detach(), part.grad / process.world))
    return results


def test_collectives_on_two_processes(tmp_path: Path) -> None:
    zero, one = run_on_ranks(collect, tmp_path)
    assert (zero.pop("main"), one.pop("main")) == (True, False)
    arrays = zero.pop("arrays")
    assert np.array_equal(arrays, np.ones((2, 2))) and np.array_equal(arrays, one.pop("arrays"))
    assert zero == one
    assert zero == {
        "sum": 4.0,
        "any": (True, False),
        "broadcast": 7.0,
    }


def test_gathering_unequal_parts_gives_the_loss_and_gradient_of_one_process(tmp_path: Path) -> None:
    ranks = run_on_ranks(gather, tmp_path)
    for number, sizes in enumerate(SPLITS):
        together = rows(sum(sizes)).requires_grad_()
        contrast(together).backward()
        for rank in ranks:
            assert torch.equal(rank[number][0], together.detach())
        gradient = torch.cat([rank[number][1] for rank in ranks])
        torch.testing.assert_close(gradient, together.grad, rtol=0, atol=1e-12)


def test_a_single_process_exchanges_nothing() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    assert distributed.gather_with_gradient(x) is x
    assert distributed.world() == 1 and distributed.is_main()
    assert distributed.all_reduce_sum(2.5) == distributed.broadcast_value(2.5) == 2.5
    assert distributed.any_flag(True) and not distributed.any_flag(False)
    assert distributed.gather_arrays(np.ones(2)).tolist() == [1, 1]
    distributed.barrier()
    distributed.shutdown()


def test_an_unavailable_device_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of auto, cpu, cuda, mps, not 'tpu'"):
        distributed.setup("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"cannot use a GPU here .* or use --device cpu"):
            distributed.setup("cuda")


def test_a_process_on_a_cpu_keeps_the_memory_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(distributed, "keep_freed_memory", kept.append)
    distributed.setup("cpu")
    assert kept == [2**30]


@pytest.mark.parametrize("variable", [{}, {"SLURM_JOB_GPUS": "0"}])
def test_a_gpu_that_pytorch_cannot_use_is_not_replaced_by_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: dict[str, str]
) -> None:
    """As with a driver that is too old for the CUDA of the wheels."""

    def fail() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update")

    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(distributed, "DEVICE_FILES", tmp_path)
    if not variable:
        assert distributed.setup().device.type == "cpu", "no GPU at all"
        (tmp_path / "nvidia0").touch()
    with pytest.raises(ValueError, match=r"--device auto: .* too old \(found version 12020\)\); update"):
        distributed.setup()
    assert distributed.setup("cpu").device.type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert distributed.setup().device.type == "cpu", "the user hides it"


def test_the_gpu_of_an_apple_machine_is_taken_on_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match=r"--device mps: PyTorch sees no GPU .*; use --device cpu"):
            distributed.setup("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert distributed.setup("mps").device == torch.device("mps")
    assert distributed.setup("auto").device.type in ("cpu", "cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--device mps: an Apple machine has one GPU"):
        distributed.setup("mps")


FAILING = """
from dataclasses import dataclass
from utils import distributed
from utils.cli import run_cli


@dataclass(frozen=True)
class Config:
    \"\"\"Nothing to set.\"\"\"


def main(config: Config) -> None:
    process = distributed.setup("cpu")
    total = distributed.all_reduce_sum(process.rank + 1)
    if distributed.is_main():
        print("total", total, process.world, process.device, flush=True)
    if process.rank == 1:
        raise OSError("hourly.npy: cannot be read")
    distributed.barrier()


run_cli(main, Config)
"""


def test_under_torchrun_a_process_that_fails_stops_the_others_and_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FAILING)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = Path(distributed.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, *launch, str(script)],
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        timeout=120,  # of two hours that a collective may take
    )
    assert done.stdout.split() == ["total", "3.0", "2", "cpu"]
    assert done.returncode == 1 and "error in process 1: hourly.npy: cannot be read\n" in done.stderr
    report = done.stderr.split("Root Cause (first observed failure)")[1]
    assert "rank      : 1" in report and "OSError: hourly.npy: cannot be read" in report
