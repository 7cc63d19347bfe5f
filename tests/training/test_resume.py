"""What is restored is what was saved, in the order in memory of the weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from training.resume import Progress, ResumableTraining
from utils import checkpoint

KINDS = {
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.1, fused=True),
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, fused=True),
}


def training(kind: str, layout: torch.memory_format, network: nn.Module | None = None) -> ResumableTraining:
    torch.manual_seed(0)
    objective = nn.Conv2d(3, 5, 3).to(memory_format=layout)
    if network is not None:
        objective.load_state_dict(network.state_dict())
    return ResumableTraining(
        objective, KINDS[kind](objective.parameters()), kind, steps=2, store="store", epochs=3
    )


def step(trained: ResumableTraining) -> torch.Tensor:
    trained.optimizer.zero_grad()
    images = torch.linspace(-1, 1, 4 * 3 * 8 * 8).view(4, 3, 8, 8)
    trained.objective(images).square().mean().backward()
    trained.optimizer.step()
    return trained.objective.weight.detach().clone()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_state_written_with_another_layout_of_the_weights_goes_on_as_before(
    tmp_path: Path, kind: str, layout: torch.memory_format
) -> None:
    before = training(kind, torch.contiguous_format)
    step(before)
    parts = {"objective": before.objective.state_dict()}
    content = {"parts": parts, "config": {}, "epoch": 1, "training": before.state(Progress())}
    checkpoint.save(tmp_path / "last.ckpt", content)
    after = training(kind, layout)
    after.restore(tmp_path / "last.ckpt")
    assert torch.allclose(step(after), step(before), atol=1e-6)
