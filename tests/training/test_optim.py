"""LARS agrees with a slow reference; rates follow their schedule."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn, optim

from training.early_stopping import PatienceConfig
from training.lars import LARS
from training.optim import OptimConfig, build_optimizer, learning_rate, warn_of_unused_flags


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
