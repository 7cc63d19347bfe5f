"""The SimCLR objective: pairs of a batch in, loss out; many processes are as one."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from datasets.schema import Batch
from models import losses
from models.encoders import EncoderConfig, build_encoders
from models.heads import build_heads
from models.objectives.simclr import SimCLR
from tests.random_batches import random_batch


def make_objective(denominator: losses.Denominator = "decoupled") -> SimCLR:
    torch.manual_seed(0)
    encoders = build_encoders(EncoderConfig(ehr_dim=16, vision_backbone="resnet18"))
    return SimCLR(encoders, build_heads(encoders, width=1), 0.1, denominator)


@pytest.mark.parametrize("denominator", losses.DENOMINATORS)
def test_the_loss_is_that_of_the_heads_outputs(make_batch, denominator: losses.Denominator) -> None:
    objective, batch = make_objective(denominator).eval(), make_batch([3, 9, 1, 5], [True] * 4)
    image = objective.heads["cxr"](objective.encoders["cxr"](batch.cxr))
    ehr = objective.heads["ehr"](objective.encoders["ehr"](batch.ehr))
    assert torch.equal(objective(batch)["loss"], losses.simclr(image, ehr, 0.1, denominator))


def test_samples_without_an_image_are_left_out(make_batch) -> None:
    objective = make_objective().eval()
    partial = make_batch([3, 9, 1, 5], [True, False, True, True])
    stays = torch.nn.utils.rnn.unpack_sequence(partial.ehr)
    pairs = torch.nn.utils.rnn.pack_sequence([stays[0], stays[2], stays[3]], enforce_sorted=False)
    complete = partial._replace(ehr=pairs, has_cxr=torch.ones(3, dtype=torch.bool))
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


WHOLE = ([3, 9, 1, 5, 7], [True, True, False, True, True])
SHARES = ([0, 1, 2], [3, 4])  # unequal: 2 pairs each, but 3 and 2 samples


def share_of(batch: Batch, rows: list[int], images: list[int]) -> Batch:
    stays = torch.nn.utils.rnn.unpack_sequence(batch.ehr)
    packed = torch.nn.utils.rnn.pack_sequence([stays[row] for row in rows], enforce_sorted=False)
    return batch._replace(ehr=packed, cxr=batch.cxr[images], has_cxr=batch.has_cxr[rows])


def train_share(rank: int, port: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    objective = DistributedDataParallel(make_objective().double().eval())
    batch = double(random_batch(*WHOLE))
    loss = objective(share_of(batch, SHARES[rank], [[0, 1], [2, 3]][rank]))["loss"]
    loss.backward()
    gradients = {name: weight.grad for name, weight in objective.module.named_parameters()}
    torch.save({"loss": loss.detach(), "gradients": gradients}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def double(batch: Batch) -> Batch:
    return batch._replace(ehr=batch.ehr.double(), cxr=batch.cxr.double())


def test_two_processes_have_the_loss_and_gradient_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(train_share, (port, tmp_path), nprocs=2)
    objective = make_objective().double().eval()
    loss = objective(double(random_batch(*WHOLE)))["loss"]
    loss.backward()
    for rank in range(2):
        share = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(share["loss"], loss, rtol=1e-6)
        for name, weight in objective.named_parameters():
            assert torch.allclose(share["gradients"][name], weight.grad, rtol=1e-5, atol=1e-8), name
