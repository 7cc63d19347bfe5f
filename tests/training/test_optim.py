"""LARS agrees with a slow reference; rates follow their schedule."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn, optim

from models.convolution import suit_small_maps
from models.taps import TapGradient, Taps, put_taps_outermost
from training.early_stopping import PatienceConfig
from training.lars import LARS
from training.optim import OptimConfig, build_optimizer, learning_rate, warn_of_unused_flags
from training.optimizers import catch_up, late_decay


def slow_lars(weight: Tensor, gradients: list[Tensor], adapt: bool) -> Tensor:
    """LARS by its definition: momentum 0.9, decay 0.1, trust 0.02, rates 0.5 and then 0.25."""
    buffer = torch.zeros_like(weight)
    for gradient, rate in zip(gradients, (0.5, 0.25), strict=True):
        decay, scale = (0.1, 1.0) if adapt else (0.0, 1.0)
        if adapt and weight.norm() > 0 and gradient.norm() > 0:
            scale = 0.02 * weight.norm() / (gradient.norm() + decay * weight.norm())
        buffer = 0.9 * buffer + scale * (gradient + decay * weight)
        weight = weight - rate * buffer
    return weight


class Mixed(nn.Module):
    """A matrix, a bias, a zero matrix, a temperature, a frozen matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2).double()
        self.zero = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
        self.temperature = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(2, 2, dtype=torch.float64), requires_grad=False)


@pytest.mark.parametrize("exclude", ["norm_bias", "none"])
def test_lars_equals_its_definition(exclude: str) -> None:
    module = Mixed()
    config = OptimConfig(
        optimizer="lars", lr=0.5, weight_decay=0.1, trust_coefficient=0.02, lars_exclude=exclude
    )
    optimizer = build_optimizer(config, module)
    weights = [(name, w) for name, w in module.named_parameters() if w.requires_grad]
    steps = [[torch.randn_like(w) for _ in range(2)] for _, w in weights]
    smallest = 2 if exclude == "norm_bias" else 1
    want = [slow_lars(w.detach(), g, w.ndim >= smallest) for (_, w), g in zip(weights, steps, strict=True)]
    for step, rate in enumerate((0.5, 0.25)):
        for (_, weight), gradients in zip(weights, steps, strict=True):
            weight.grad = gradients[step]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for (_, weight), reference in zip(weights, want, strict=True):
        torch.testing.assert_close(weight.detach(), reference)
    assert torch.equal(module.frozen, torch.ones_like(module.frozen))


def test_lars_without_decay_still_scales_each_step_by_the_norms() -> None:
    weight, gradient = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    parameter = nn.Parameter(weight.clone())
    parameter.grad = gradient
    LARS([parameter], lr=1.0, weight_decay=0.0, trust_coefficient=0.01).step()
    assert torch.allclose(weight - parameter.detach(), 0.01 * 5 / 2 * gradient)


def test_lars_skips_weights_without_a_gradient_and_returns_the_closure() -> None:
    one, other = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = LARS([one, other], lr=1.0)

    def closure() -> Tensor:
        loss = one.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert not torch.equal(one, torch.ones(2, 2)) and torch.equal(other, torch.ones(2, 2))


@pytest.mark.parametrize("name", ["lars", "adamw", "adam", "sgd"])
def test_a_temperature_is_never_decayed(name: str) -> None:
    module = Mixed()
    optimizer = build_optimizer(OptimConfig(optimizer=name, weight_decay=0.1), module)
    decay = {id(w): group["weight_decay"] for group in optimizer.param_groups for w in group["params"]}
    assert decay[id(module.temperature)] == 0 and decay[id(module.linear.weight)] == 0.1
    assert decay[id(module.linear.bias)] == (0 if name == "lars" else 0.1)
    assert id(module.frozen) not in decay


@pytest.mark.parametrize("name", ["lars", "adamw"])
def test_weights_are_grouped_by_their_multiple_of_the_learning_rate(name: str) -> None:
    module = Mixed()
    optimizer = build_optimizer(OptimConfig(optimizer=name), module, {module.linear.bias: 0.1})
    lr_scale = {w: group["lr_scale"] for group in optimizer.param_groups for w in group["params"]}
    assert lr_scale == {
        module.linear.weight: 1,
        module.linear.bias: 0.1,
        module.zero: 1,
        module.temperature: 1,
    }


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="every weight of the model is frozen"):
        build_optimizer(OptimConfig(), nn.Linear(1, 1).requires_grad_(False))


def rates(config: OptimConfig, steps: int, lr_drops: int = 0) -> list[float]:
    return [learning_rate(config, e, s, steps, lr_drops) for e in range(config.epochs) for s in range(steps)]


def test_warm_up_rises_step_by_step_and_cosine_falls_to_nothing() -> None:
    got = rates(OptimConfig(lr=2.0, epochs=6, warmup_epochs=2, schedule="cosine"), 5)
    assert got[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    assert got[10] == 2.0 and got[19] + got[20] == pytest.approx(2.0)  # half of it half-way
    assert all(a > b for a, b in pairwise(got[10:])) and got[-1] == 0


def test_steps_fall_at_60_and_80_percent_of_the_epochs() -> None:
    got = rates(OptimConfig(lr=1.0, epochs=10, schedule="step"), 2)
    assert got == pytest.approx([1.0] * 12 + [0.1] * 4 + [0.01] * 4)


def outcome(config: OptimConfig) -> list[float]:
    """Rates of all epochs after a drop, and the weights after two steps with equal gradients."""
    module = Mixed()
    optimizer = build_optimizer(config, module)
    for _ in range(2):
        for weight in module.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    weights = [weight.detach().reshape(-1) for weight in module.parameters()]
    return rates(config, 1, lr_drops=1) + torch.cat(weights).tolist()


OTHERS = {
    "momentum": 0.5,
    "lars_exclude": "none",
    "trust_coefficient": 0.5,
    "milestones": (0.5,),
    "gamma": 0.2,
}


@pytest.mark.parametrize("flag", OTHERS)
@pytest.mark.parametrize("schedule", ["cosine", "step", "constant", "plateau"])
@pytest.mark.parametrize("optimizer", ["lars", "adamw", "adam", "sgd"])
def test_a_flag_that_changes_nothing_is_warned_of(
    optimizer: str, schedule: str, flag: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = OptimConfig(optimizer=optimizer, schedule=schedule, epochs=10)
    changed = replace(config, **{flag: OTHERS[flag]})
    warn_of_unused_flags(config)
    assert not caplog.text
    warn_of_unused_flags(changed)
    assert (f"does not read --{flag};" in caplog.text) is (outcome(config) == outcome(changed))


def test_a_patience_without_a_plateau_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unused_flags(OptimConfig(schedule="plateau", plateau_patience=3))
    assert not caplog.text
    warn_of_unused_flags(OptimConfig(schedule="step", plateau_patience=3))
    assert "--schedule step does not read --plateau_patience;" in caplog.text


def test_plateau_and_constant() -> None:
    assert rates(OptimConfig(lr=1.0, epochs=2, schedule="plateau", gamma=0.5), 1, lr_drops=2) == [0.25, 0.25]
    assert rates(OptimConfig(lr=1.0, epochs=2, schedule="constant"), 1, lr_drops=2) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 0.0), ("epochs", 0), ("warmup_epochs", -1), ("momentum", 1.0), ("milestones", (0.5, 1.0))],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--{name} .* is out of range; use "):
        OptimConfig(**{name: value})


@pytest.mark.parametrize("setting", [{"patience": -1}, {"min_delta": -0.1}])
def test_a_negative_patience_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is out of range; use 0 or more"):
        PatienceConfig(**setting)


def test_a_warm_up_longer_than_the_training_tells_both_and_the_cure() -> None:
    with pytest.raises(ValueError, match=r"--epochs 2: .* --warmup_epochs 10, .*; use --warmup_epochs 0"):
        OptimConfig(epochs=2, warmup_epochs=10)
    assert OptimConfig(epochs=10, warmup_epochs=10).warmup_epochs == 10


THEIRS = {"adamw": optim.AdamW, "adam": optim.Adam, "sgd": partial(optim.SGD, momentum=0.9)}


@pytest.mark.parametrize("name", THEIRS)
def test_optimizers_are_pytorchs_and_keep_their_state(name: str) -> None:
    config = OptimConfig(optimizer=name, lr=0.1, weight_decay=0.0)
    ours, theirs, resumed = (nn.Linear(3, 2) for _ in range(3))
    theirs.load_state_dict(ours.state_dict())
    optimizers = {
        ours: build_optimizer(config, ours),
        theirs: THEIRS[name](theirs.parameters(), lr=0.1, weight_decay=0.0, fused=True),
    }
    inputs = torch.randn(4, 5, 3)
    for batch in inputs[:3]:
        for module, optimizer in optimizers.items():
            module(batch).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert module.weight.grad is None
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    resumed.load_state_dict(ours.state_dict())
    optimizers[resumed] = build_optimizer(config, resumed)
    optimizers[resumed].load_state_dict(copy.deepcopy(optimizers[ours].state_dict()))
    for module in (ours, resumed):
        module(inputs[3]).square().sum().backward()
        optimizers[module].step()
    assert all(map(torch.equal, ours.parameters(), resumed.parameters()))


def test_a_step_leaves_no_graph_and_calls_the_hooks_of_steps() -> None:
    called, module = [], nn.Linear(3, 2)
    optimizer = build_optimizer(OptimConfig(), module)
    optimizer.register_step_post_hook(lambda *step: called.append(step))
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    assert len(called) == 1 and module.weight.grad_fn is None and torch.is_grad_enabled()


def two_convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Conv2d(4, 32, 3, stride=2, padding=1, bias=False), nn.Conv2d(32, 32, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second).double()


def suited(network: nn.Sequential) -> nn.Sequential:
    """Return the convolutions of small maps with the same weights."""
    copied = suit_small_maps(copy.deepcopy(network))
    for layer in (copied[0], copied[2]):
        put_taps_outermost(layer.weight)
    return copied


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_unseen_taps_are_updated_as_by_pytorch(name: str, clip: float, weight_decay: float) -> None:
    """Maps of other sizes see more taps, or fewer; the training is resumed after each third step."""
    config = OptimConfig(optimizer=name, lr=0.01, weight_decay=weight_decay)
    plain = two_convolutions()
    ours = suited(plain)
    theirs = THEIRS[name](plain.parameters(), lr=0.01, weight_decay=weight_decay, fused=True)
    optimizer, known = build_optimizer(config, ours), []
    for step, size in enumerate([1, 1, 2, 2, 1, 2, 3, 2, 1, 6, 1]):
        images = torch.rand(3, 4, size, size, dtype=torch.float64)
        for network, steps in ((plain, theirs), (ours, optimizer)):
            steps.zero_grad()
            network(images).square().mean().backward()
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            steps.step()
        known.append(TapGradient.of(ours[2].weight) is not None)
        if step % 3 == 2:
            state = copy.deepcopy((ours.state_dict(), optimizer.state_dict()))
            ours = suited(two_convolutions())
            ours.load_state_dict(state[0])
            optimizer = build_optimizer(config, ours)
            optimizer.load_state_dict(state[1])
        for mine, weight in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, weight, rtol=1e-11, atol=1e-12)
    assert known == [not clip and size < 3 for size in [1, 1, 2, 2, 1, 2, 3, 2, 1, 6, 1]]


def test_moments_of_taps_that_were_never_seen_stay_untouched() -> None:
    network = suited(two_convolutions())
    optimizer = build_optimizer(OptimConfig(weight_decay=0.3), network)
    unseen = Taps((1, 2), (1, 2)).others_of
    weight = network[2].weight
    before = [rest.clone() for rest in unseen(weight.permute(2, 3, 1, 0))]
    network(torch.rand(3, 4, 2, 2, dtype=torch.float64)).square().mean().backward()
    versions = optimizer.step()
    assert versions is None and optimizer.state[weight]["step"] == 1
    for rest, was in zip(unseen(weight.detach().permute(2, 3, 1, 0)), before, strict=True):
        torch.testing.assert_close(rest, was * (1 - 1e-3 * 0.3), rtol=1e-12, atol=0)
    for moment in ("exp_avg", "exp_avg_sq"):
        state = optimizer.state[weight][moment]
        assert state[:, :, 1, 1].any() and not any(rest.any() for rest in unseen(state.permute(2, 3, 1, 0)))


def test_weights_that_were_moved_are_updated_where_they_are() -> None:
    """As `Module.to` and `put_taps_outermost` do, weights get other memory between two steps."""
    network, moved = suited(two_convolutions()), suited(two_convolutions())
    optimizers = [build_optimizer(OptimConfig(weight_decay=0.3), each) for each in (network, moved)]
    for images in torch.rand(3, 2, 4, 2, 2, dtype=torch.float64):
        for each, optimizer in zip((network, moved), optimizers, strict=True):
            optimizer.zero_grad()
            each(images).square().mean().backward()
            optimizer.step()
        for weight in moved.parameters():
            weight.data = weight.data.clone()
    assert all(map(torch.equal, moved.parameters(), network.parameters()))


@pytest.mark.parametrize("sizes", [[1] * 40, [1, 1, 2, 1, 6, 1, 2, 1, 1, 3, 1]])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_decay_of_several_steps_at_once_is_that_of_each_step(name: str, sizes: list[int]) -> None:
    """Maps of other sizes see taps that are behind."""
    network, late = suited(two_convolutions()), suited(two_convolutions())
    config = OptimConfig(optimizer=name, lr=0.01, weight_decay=0.3)
    optimizers = [build_optimizer(config, each) for each in (network, late)]
    corner = late[2].weight[:, :, 0, 0]
    behind = []
    with late_decay(optimizers[1]):
        for step, size in enumerate(sizes):
            images = torch.rand(3, 4, size, size, dtype=torch.float64)
            outputs = []
            for each, optimizer in zip((network, late), optimizers, strict=True):
                optimizer.zero_grad()
                outputs.append(each(images))
                outputs[-1].square().mean().backward()
                for group in optimizer.param_groups:
                    group["lr"] = 0.01 / (1 + step)
                optimizer.step()
            assert torch.equal(*outputs)
            behind.append(not torch.equal(network[2].weight[:, :, 0, 0], corner))
            if step == len(sizes) // 2:
                catch_up(optimizers[1])
                assert all(map(torch.equal, network.parameters(), late.parameters()))
    assert all(map(torch.equal, network.parameters(), late.parameters()))
    assert any(behind) == (name == "adamw")
