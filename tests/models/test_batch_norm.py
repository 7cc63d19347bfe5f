"""Batch norm over processes is batch norm over their samples together."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.batch_norm import CPUSyncBatchNorm, convert_sync_batch_norm
from tests.utils.ranks import run_on_ranks
from utils.distributed import Process

SPLITS = ([3, 2], [5, 0])
KINDS = (nn.BatchNorm2d, BatchNormAct2d)  # the second one is timm's, which activates too
CPU = torch.device("cpu")


def maps(dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 + torch.randn(5, 4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)


def layer(kind: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> nn.BatchNorm2d:
    norm = kind(4).double()
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
        learn(maps().split(sizes)[process.rank], convert_sync_batch_norm(nn.Sequential(layer(kind)), CPU)[0])
        for kind in KINDS
        for sizes in SPLITS
    ]


def test_two_processes_normalise_as_one(tmp_path: Path) -> None:
    ranks = run_on_ranks(learn_on_ranks, tmp_path)
    alone_of = [learn(maps(), layer(kind)) for kind in KINDS for _ in SPLITS]
    for one, two, alone in zip(*ranks, alone_of, strict=True):
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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_byobnet", "test_resnet"])
def test_timms_networks_keep_their_activations(name: str, device: str) -> None:
    network, images = timm.create_model(name, num_classes=0).eval(), torch.randn(2, 3, 64, 64)
    plain, weights = network(images), network.state_dict()
    synced = convert_sync_batch_norm(network, torch.device(device))
    torch.testing.assert_close(synced(images), plain)
    assert synced.state_dict().keys() == weights.keys()
    names = {type(part).__name__ for part in synced.modules() if isinstance(part, _BatchNorm)}
    assert names and all(part.startswith(f"{device.upper()}SyncBatchNorm") for part in names)


def test_another_librarys_batch_norm_is_refused() -> None:
    class FilterNorm(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match=r"kind .*FilterNorm cannot work over several processes; start one"):
        convert_sync_batch_norm(nn.Sequential(FilterNorm(4)), CPU)
