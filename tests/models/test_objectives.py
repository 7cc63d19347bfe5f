"""Properties of every objective, among them that several processes train like one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from datasets.schema import Batch
from models import losses
from models.batch_norm import convert_sync_batch_norm
from models.encoders import EHR_ENCODERS, EncoderConfig, build_encoders
from models.heads import build_heads
from models.objectives import OBJECTIVES, ObjectiveSettings
from models.objectives.align import swap_two_blocks
from models.objectives.base import PairObjective
from models.objectives.settings import MAX_SWAP, ALIGNSettings, SimCLRSettings
from models.objectives.temperature import MIN_TEMPERATURE, LearnableTemperature
from tests.random_batches import random_batch, random_triplets, take_samples
from tests.utils.ranks import run_on_ranks
from training import optim
from training.optim import OptimConfig
from utils.distributed import Process

SETTINGS: dict[str, ObjectiveSettings] = {
    **{name: settings() for name, settings in OBJECTIVES.items()},
    "full": SimCLRSettings(denominator="full"),
}
ENCODERS = [name for name in EHR_ENCODERS if name != "lstm"]
every_objective = pytest.mark.parametrize("name", SETTINGS)


def make_objective(name: str, encoder: str = "lstm") -> PairObjective:
    torch.manual_seed(0)
    encoders = build_encoders(
        EncoderConfig(encoder, ehr_dim=16, ehr_dropout=0, vision_backbone="test_resnet")
    )
    return SETTINGS[name].build(encoders, build_heads(encoders, SETTINGS[name].width))


def make_pairs(pairs: int, seed: int = 0) -> Batch:
    batch = random_batch([3 + n for n in range(pairs)], [True] * pairs, seed=seed)
    return batch._replace(gap_days=torch.arange(pairs) / 3)


# Each objective's loss of image, EHR and days between, in evaluation, with what it has not learnt yet.
EXPECTED: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "simclr": lambda image, ehr, days: losses.simclr(image, ehr, 0.1),
    "full": lambda image, ehr, days: losses.simclr(image, ehr, 0.1, "full"),
    "tsimclr": lambda image, ehr, days: losses.simclr(image, ehr, 0.1, weight=2 - torch.exp(-2 * days)),
    "clip": lambda image, ehr, days: losses.clip(image, ehr, 0.07),
    "siglip": lambda image, ehr, days: losses.siglip(image, ehr, 0.1, -10.0),
    "vicreg": lambda image, ehr, days: losses.vicreg(image, ehr)["loss"],
    "align": lambda image, ehr, days: losses.simclr(image, ehr, 0.07),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_loss_is_that_of_the_heads_outputs(name: str) -> None:
    objective, batch = make_objective(name).eval(), make_pairs(5)
    image = objective.heads["cxr"](objective.encoders["cxr"](batch.cxr))
    ehr = objective.heads["ehr"](objective.encoders["ehr"](batch.ehr))
    loss = objective(batch)["loss"].item()
    assert loss == pytest.approx(EXPECTED[name](image, ehr, batch.gap_days).item(), rel=1e-5)


@every_objective
def test_samples_without_an_image_are_left_out(name: str) -> None:
    objective = make_objective(name).eval()
    partial = random_batch([3, 5, 4, 5, 6], [True, False, True, True, True])
    complete = take_samples(partial, [0, 2, 3, 4])
    assert objective(partial)["loss"].item() == pytest.approx(objective(complete)["loss"].item(), rel=1e-4)
    assert objective(partial)["count"] == 4


@every_objective
@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_any_batch_gives_every_weight_a_gradient(name: str, pairs: int) -> None:
    objective = make_objective(name).train()
    batch = random_batch([4, 2, 3], [True] * pairs + [False] * (3 - pairs))
    terms = objective(batch)
    terms["loss"].backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in objective.parameters())
    learns = any(weight.grad.any() for weight in objective.parameters())
    assert learns == (pairs > (0 if name == "siglip" else 1))


@every_objective
def test_a_few_steps_lower_the_loss(name: str) -> None:
    objective, batch = make_objective(name).train(), make_pairs(6)
    optimiser = torch.optim.Adam(objective.parameters(), 1e-3)
    first = objective(batch)["loss"].item()
    for _ in range(10):
        optimiser.zero_grad()
        loss = objective(batch)["loss"]
        loss.backward()
        optimiser.step()
    assert loss.item() < first


@pytest.mark.parametrize(("name", "learnt"), [("align", 1), ("clip", 1), ("siglip", 2), ("simclr", 0)])
def test_what_is_learnt_beside_the_weights_is_not_decayed(name: str, learnt: int) -> None:
    objective = make_objective(name)
    numbers = [weight for weight in objective.parameters() if weight.ndim == 0]
    groups = optim.build_optimizer(OptimConfig("adamw", weight_decay=0.1), objective).param_groups
    bare = [id(weight) for group in groups if group["weight_decay"] == 0 for weight in group["params"]]
    assert len(numbers) == learnt and {id(weight) for weight in numbers} == set(bare)


@pytest.mark.parametrize(("name", "start"), [("align", 0.07), ("clip", 0.07), ("siglip", 0.1)])
def test_a_learnt_temperature_is_logged_and_moves(name: str, start: float) -> None:
    objective, batch = make_objective(name).train(), make_pairs(6)
    optimiser = torch.optim.Adam(objective.parameters(), 1e-2)
    terms = objective(batch)
    assert terms["temperature"].item() == pytest.approx(start) and not terms["temperature"].requires_grad
    terms["loss"].backward()
    optimiser.step()
    assert objective(batch)["temperature"].item() != pytest.approx(start, rel=1e-4)


def test_a_temperature_stays_positive_and_comes_back_from_its_edge() -> None:
    temperature = LearnableTemperature(0.07)
    with torch.no_grad():
        temperature.log_scale.fill_(50.0)
    assert temperature.eval()().item() == pytest.approx(MIN_TEMPERATURE)
    optimiser = torch.optim.SGD(temperature.parameters(), 1.0)
    (-temperature.train()()).backward()
    optimiser.step()
    assert temperature().item() > MIN_TEMPERATURE
    with pytest.raises(ValueError, match=r"--temperature 0.001: .* 0.01 or above"):
        LearnableTemperature(0.001)


@settings(deadline=None, max_examples=300)
@given(count=st.integers(0, 600), swap=st.floats(0, MAX_SWAP), seed=st.integers(0, 10_000))
def test_two_blocks_of_the_published_size_and_place_change_places(count: int, swap: float, seed: int) -> None:
    order = swap_two_blocks(count, swap, torch.Generator().manual_seed(seed)).tolist()
    moved = [row for row in range(count) if order[row] != row]
    size = len(moved) // 2
    assert sorted(order) == list(range(count)) and [order[order[row]] for row in range(count)] == sorted(
        order
    )
    assert 0.8 * swap * count - 1 < size <= swap * count
    if size:
        first, second = moved[:size], moved[size:]
        assert [order[row] for row in first] == second and second == list(range(second[0], second[0] + size))
        assert first == list(range(first[0], first[0] + size)) and first[0] < 0.4 * count
        assert 0.6 * count - 1 < second[0] <= 0.8 * count


def test_align_swaps_in_training_alone_and_by_the_steps_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(losses, "simclr", lambda image, ehr, *rest: seen.append(ehr.detach()) or ehr.sum())
    objective, batch = make_objective("align").train(), make_pairs(10)
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        objective(batch)
    true = objective.embed(batch)[1]
    moved = [(~torch.isclose(ehr, true).all(dim=1)).sum().item() for ehr in seen]
    assert moved[0] in (2, 4) and torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    objective.eval()(batch)
    quiet = ALIGNSettings(swap=0.0).build(objective.encoders, objective.heads).train()
    quiet(batch)
    assert torch.allclose(seen[3], true) and torch.allclose(seen[4], true)


def test_align_refuses_blocks_that_would_overlap() -> None:
    with pytest.raises(ValueError, match=r"--swap 0.3: .* use 0 \(no noise\) to 0.2"):
        ALIGNSettings(swap=0.3).build({}, {})


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_learned_temperature_cannot_be_trained_with_lars(name: str) -> None:
    SETTINGS[name].check("adamw")
    with pytest.raises(ValueError, match="add --optimizer adamw --lr 1e-4"):
        SETTINGS[name].check("lars")


PAIRS = 11  # pairs of the global batch; row 2 has no image
ROWS_OF_RANK = ((0, 1, 2, 3, 4, 5, 6), (7, 8, 9, 10, 11))  # 6 pairs and 5


def global_batch() -> Batch:
    batch = random_batch([1 + n % 5 for n in range(PAIRS + 1)], [n != 2 for n in range(PAIRS + 1)])
    return batch._replace(
        ehr=batch.ehr.double(),
        cxr=batch.cxr.double(),
        gap_days=batch.gap_days * torch.arange(PAIRS + 1),
        triplets=random_triplets(batch.hours.tolist(), batch.stay, batch.hours),
    )


def train_three_steps(name: str, process: Process | None, encoder: str = "lstm") -> dict[str, object]:
    """Train on all rows, or on a rank's rows weighted by count as the loop does.

    Return loss, gradients and running statistics of the first step, and the weights after the last.
    """
    objective = make_objective(name, encoder).double().train()
    batch, model = global_batch(), objective
    if process is not None:
        model = DistributedDataParallel(convert_sync_batch_norm(objective, process.device))
        batch = take_samples(batch, ROWS_OF_RANK[process.rank])
    torch.manual_seed(7 + (process.rank if process is not None else 0))  # the loop's seed differs by rank too
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.05, momentum=0.9)
    record: dict[str, object] = {}
    for _ in range(3):
        terms = model(batch)
        weight = 1.0 if process is None else terms["count"].double() * process.world / PAIRS
        optimizer.zero_grad()
        (terms["loss"] * weight).backward()
        if not record:
            record = {
                "loss": terms["loss"].detach(),
                "accuracy": terms["accuracy"],
                "gradients": {key: weight.grad.clone() for key, weight in objective.named_parameters()},
                "statistics": {
                    key: buffer.clone() for key, buffer in objective.named_buffers() if "running" in key
                },
            }
        optimizer.step()
    return record | {"weights": {key: weight.detach() for key, weight in objective.named_parameters()}}


def train_all(process: Process, folder: Path) -> dict[str, dict[str, object]]:
    trained = {name: train_three_steps(name, process) for name in SETTINGS}
    return trained | {name: train_three_steps("simclr", process, name) for name in ENCODERS}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, object]]]:
    return run_on_ranks(train_all, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", [*SETTINGS, *ENCODERS])
def test_two_processes_train_like_one_with_the_whole_batch(
    ranks: list[dict[str, dict[str, object]]], name: str
) -> None:
    alone = train_three_steps(name, None) if name in SETTINGS else train_three_steps("simclr", None, name)
    for rank in ranks:
        assert abs(rank[name]["loss"] - alone["loss"]) <= 1e-10 * abs(alone["loss"])
        assert rank[name]["accuracy"] == alone["accuracy"]
        for key, gradient in alone["gradients"].items():
            difference = (rank[name]["gradients"][key] - gradient).abs().max()
            assert difference <= 1e-10 * gradient.abs().max() + 1e-14, key
        for key, statistic in alone["statistics"].items():
            torch.testing.assert_close(rank[name]["statistics"][key], statistic, rtol=0, atol=1e-12)
        for key, weight in alone["weights"].items():
            torch.testing.assert_close(rank[name]["weights"][key], weight, rtol=0, atol=1e-10)
