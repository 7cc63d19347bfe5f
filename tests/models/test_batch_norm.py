"""Batch norm over processes is batch norm over their samples together."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.batch_norm import CPUSyncBatchNorm, convert_sync_batch_norm
from tests.utils.ranks import run_on_ranks
from utils.distributed import Process

SPLITS = ([3, 2], [5, 0])
CPU = torch.device("cpu")


def maps(dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 + torch.randn(5, 4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)


def layer() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(4).double()
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    return norm


def learn(part: Tensor, norm: nn.Module) -> dict[str, Tensor]:
    """Output, gradients and statistics of a step, under a loss that weighs every value differently."""
    part = part.clone().requires_grad_()
    output = norm(part)
    (output.square() * part.detach()).sum().backward()
    gradients = {f"{name}_gradient": weight.grad for name, weight in norm.named_parameters()}
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    return {"output": output.detach(), "gradient": part.grad, **gradients, **state}


def learn_on_ranks(process: Process, folder: Path) -> list[dict[str, Tensor]]:
    return [
        learn(maps().split(sizes)[process.rank], convert_sync_batch_norm(nn.Sequential(layer()), CPU)[0])
        for sizes in SPLITS
    ]


def test_two_processes_normalise_as_one(tmp_path: Path) -> None:
    ranks, alone = run_on_ranks(learn_on_ranks, tmp_path), learn(maps(), layer())
    for one, two in zip(*ranks, strict=True):
        for name in ("output", "gradient"):
            torch.testing.assert_close(torch.cat([one[name], two[name]]), alone[name], rtol=0, atol=1e-12)
        for name in ("weight_gradient", "bias_gradient"):
            torch.testing.assert_close(one[name] + two[name], alone[name], rtol=0, atol=1e-12)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(one[name], alone[name], rtol=0, atol=1e-12)
            assert torch.equal(one[name], two[name])


def test_in_one_process_it_is_pytorchs_and_keeps_its_names() -> None:
    synced, plain = convert_sync_batch_norm(layer(), CPU), layer()
    assert isinstance(synced, CPUSyncBatchNorm) and synced.state_dict().keys() == plain.state_dict().keys()
    ours, theirs = learn(maps(), synced), learn(maps(), plain)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(synced.eval()(maps()), plain.eval()(maps()), rtol=0, atol=1e-12)


def test_half_precision_is_summed_in_float32() -> None:
    synced, plain = convert_sync_batch_norm(layer().float(), CPU), layer().float()
    half = maps(torch.float32).to(torch.bfloat16)
    assert synced(half).dtype == torch.bfloat16
    torch.testing.assert_close(synced(half).float(), plain(half.float()), rtol=0, atol=0.05)
