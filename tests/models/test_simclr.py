"""The SimCLR objective: pairs of a batch in, loss out."""

import pytest
import torch

from models import losses
from models.encoders import EncoderConfig, build_encoders
from models.heads import build_heads
from models.objectives.settings import SimCLRSettings
from models.objectives.simclr import SimCLR
from tests.random_batches import take_samples


def make_objective(denominator: losses.Denominator = "decoupled") -> SimCLR:
    torch.manual_seed(0)
    encoders = build_encoders(EncoderConfig(ehr_dim=16, vision_backbone="test_resnet"))
    return SimCLRSettings(denominator=denominator).build(encoders, build_heads(encoders, width=1))


@pytest.mark.parametrize("denominator", losses.DENOMINATORS)
def test_the_loss_is_that_of_the_heads_outputs(make_batch, denominator: losses.Denominator) -> None:
    objective, batch = make_objective(denominator).eval(), make_batch([3, 9, 1, 5], [True] * 4)
    image = objective.heads["cxr"](objective.encoders["cxr"](batch.cxr))
    ehr = objective.heads["ehr"](objective.encoders["ehr"](batch.ehr))
    assert torch.equal(objective(batch)["loss"], losses.simclr(image, ehr, 0.1, denominator))


def test_samples_without_an_image_are_left_out(make_batch) -> None:
    objective = make_objective().eval()
    partial = make_batch([3, 9, 1, 5], [True, False, True, True])
    complete = take_samples(partial, [0, 2, 3])
    assert torch.allclose(objective(partial)["loss"], objective(complete)["loss"], rtol=1e-5)
    assert objective(partial)["count"] == 3


@pytest.mark.parametrize("has_cxr", [[True], [False], [True, False], [True, True]])
def test_any_batch_gives_every_weight_a_gradient(make_batch, has_cxr: list[bool]) -> None:
    objective = make_objective().train()
    terms = objective(make_batch([4] * len(has_cxr), has_cxr))
    terms["loss"].backward()
    assert terms["loss"].isfinite() and terms["accuracy"].isfinite()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in objective.parameters())
    assert any(weight.grad.any() for weight in objective.parameters()) == (sum(has_cxr) > 1)


def test_a_few_steps_bring_pairs_together(make_batch) -> None:
    objective, batch = make_objective().train(), make_batch([3, 9, 1, 5, 7, 2], [True] * 6)
    optimiser = torch.optim.Adam(objective.parameters(), 1e-3)
    first = objective(batch)["loss"].item()
    for _ in range(15):
        optimiser.zero_grad()
        terms = objective(batch)
        terms["loss"].backward()
        optimiser.step()
    assert terms["loss"].item() < first - 1 and terms["accuracy"] == 1
