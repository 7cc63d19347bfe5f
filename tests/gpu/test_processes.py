"""What several processes exchange on GPUs, of which some may have no image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from models.batch_norm import CUDASyncBatchNorm, convert_sync_batch_norm
from tests.gpu.fake_cuda import CUDA, bf16_autocast, fake_cuda, to_fake


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.dtype]]:
    """The types of what the first of two processes sends, forward and backward."""
    types: list[torch.dtype] = []

    def send(tensor: Tensor) -> None:
        types.append(tensor.dtype)

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    monkeypatch.setattr(dist, "all_gather_into_tensor", lambda out, part, *more, **options: send(part))
    monkeypatch.setattr(dist, "all_reduce", lambda part, *more, **options: send(part))
    yield types
    dist.destroy_process_group()


def step(norm: nn.Module, images: int) -> tuple[nn.Module, Tensor]:
    network = to_fake(nn.Sequential(nn.Conv2d(3, 8, 3), norm)).train()
    with fake_cuda():
        with bf16_autocast():
            output = network(torch.empty(images, 3, 8, 8, device=CUDA))
        output.float().sum().backward()
    return network, output


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("images", [4, 0])
def test_a_process_without_an_image_exchanges_float32(
    sent: list[torch.dtype], images: int, kind: type[nn.BatchNorm2d]
) -> None:
    norm = convert_sync_batch_norm(nn.Sequential(kind(8)), CUDA)[0]
    assert isinstance(norm, CUDASyncBatchNorm)
    network, output = step(norm, images)
    assert sent == [torch.float32, torch.float32] and output.dtype == torch.bfloat16
    assert images == 0 or all(weight.grad is not None for weight in network.parameters())


def test_pytorchs_own_layer_would_send_bfloat16(sent: list[torch.dtype]) -> None:
    """If this fails, PyTorch has mended it, and CUDASyncBatchNorm can go."""
    step(nn.SyncBatchNorm(8), 0)
    assert set(sent) == {torch.bfloat16}
