"""Optimisers and learning rates: LARS and Adam, and a rate that is a function of progress alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimConfig:
    """How the weights are learnt, for how long, and which epoch counts as the best."""

    optimizer: Literal["lars", "adamw", "adam", "sgd"] = "adamw"
    """Update rule; lars is for pretraining with large batches."""
    lr: float = 1e-3
    """Peak learning rate, reached after the warm-up; it belongs to the batch of all GPUs and is not
    rescaled."""
    weight_decay: float = 0.01
    """Weight decay per unit of learning rate; decoupled in adamw, added to the gradient in the others."""
    momentum: float = 0.9
    """Momentum of lars and sgd, 0 to 1; adam and adamw use betas (0.9, 0.999)."""
    epochs: int = 300
    """Longest training, in passes over the training samples; early stopping may end it before."""
    warmup_epochs: float = 0.0
    """Epochs over which the rate grows linearly from 0 to --lr, step by step."""
    schedule: Literal["cosine", "step", "constant", "plateau"] = "step"
    """After the warm-up: cosine falls to 0 at the last step; step multiplies by --gamma at each milestone;
    plateau multiplies by --gamma when the monitor has not improved for --plateau_patience epochs."""
    milestones: tuple[float, ...] = (0.6, 0.8)
    """Where schedule step falls, as fractions of --epochs."""
    gamma: float = 0.1
    """Factor of the schedules step and plateau."""
    plateau_patience: int = 10
    """Epochs without improvement before schedule plateau falls."""
    clip: float = 0.0
    """Largest norm of the gradient of all weights together; 0 does not clip."""
    lars_exclude: Literal["norm_bias", "none"] = "norm_bias"
    """What lars neither scales nor decays: biases and norm layers, or (as published) nothing."""
    trust_coefficient: float = 1e-3
    """LARS: ratio of an update's norm to its weight's norm, times the learning rate."""
    patience: int = 30
    """Early stop: epochs in which the monitor may fail to improve by --min_delta; 0 never stops early."""
    min_delta: float = 1e-3
    """Smallest improvement that resets --patience, in the unit of the monitor."""
    monitor: str = "val_loss"
    """Column of log.csv that chooses the best epoch and stops early, for example val_loss, auroc or kappa."""
    mode: Literal["min", "max"] = "min"
    """Whether a small or a large monitor is good."""

    def lr_scale(self, name: str) -> float:
        """The learning rate of the weight with this name, as a multiple of that of the schedule."""
        return 1.0

    def __post_init__(self) -> None:
        """ValueError, naming the flag, for a value that cannot work."""
        rules = {
            "lr": ("use a number above 0", self.lr > 0),
            "epochs": ("use 1 or more", self.epochs >= 1),
            "warmup_epochs": ("use 0 or more; 0 is no warm-up", self.warmup_epochs >= 0),
            "weight_decay": ("use 0 or more; 0 is no decay", self.weight_decay >= 0),
            "momentum": ("use 0 or more, and less than 1", 0 <= self.momentum < 1),
            "clip": ("use 0 or more; 0 does not clip", self.clip >= 0),
            "gamma": ("use a number above 0, up to 1", 0 < self.gamma <= 1),
            "milestones": ("use fractions between 0 and 1", all(0 < place < 1 for place in self.milestones)),
            "patience": ("use 0 or more; 0 never stops early", self.patience >= 0),
            "min_delta": ("use 0 or more", self.min_delta >= 0),
        }
        for name, (cure, holds) in rules.items():
            if not holds:
                raise ValueError(f"--{name} {getattr(self, name)} is out of range; {cure}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"--epochs {self.epochs}: the warm-up, --warmup_epochs {self.warmup_epochs:g}, must not be "
                "longer; use --warmup_epochs 0, or more epochs"
            )


def learning_rate(optim: OptimConfig, epoch: int, step: int, steps: int, falls: int = 0) -> float:
    """The rate of step `step` (from 0) of the `steps` in epoch `epoch` (from 0).

    `falls`: how often schedule plateau has fallen so far; the other schedules need no memory.

    >>> optim = OptimConfig(lr=1.0, epochs=10, warmup_epochs=2, schedule="cosine")
    >>> [round(learning_rate(optim, epoch, 0, 1), 3) for epoch in range(10)]
    [0.5, 1.0, 1.0, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038]
    """
    done, warm = epoch * steps + step, optim.warmup_epochs * steps
    if done < warm:
        return optim.lr * min(1.0, (done + 1) / warm)
    return optim.lr * _SCHEDULES[optim.schedule](optim, done, warm, steps, falls)


def _cosine(optim: OptimConfig, done: int, warm: float, steps: int, falls: int) -> float:
    return (1 + math.cos(math.pi * (done - warm) / max(optim.epochs * steps - warm, 1))) / 2


def _step(optim: OptimConfig, done: int, warm: float, steps: int, falls: int) -> float:
    return optim.gamma ** sum(done // steps >= round(optim.epochs * place) for place in optim.milestones)


def _constant(optim: OptimConfig, done: int, warm: float, steps: int, falls: int) -> float:
    return 1.0


def _plateau(optim: OptimConfig, done: int, warm: float, steps: int, falls: int) -> float:
    return optim.gamma**falls


_SCHEDULES: dict[str, Callable[[OptimConfig, int, float, int, int], float]] = {
    "cosine": _cosine,
    "step": _step,
    "constant": _constant,
    "plateau": _plateau,
}


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose update of each tensor has a norm in proportion to its own (You et al. 2017).

    Groups with `adapt` False are plain SGD with momentum. The buffer holds scaled gradients, so that a change
    of the learning rate acts at once.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, object]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all tensors that have a gradient; returns the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(group, params)
        return loss

    def _update(self, group: Mapping[str, float], params: list[Tensor]) -> None:
        decay = group["weight_decay"]
        gradients = [param.grad for param in params if param.grad is not None]
        updates = torch._foreach_add(gradients, params, alpha=decay)
        if group["adapt"]:
            weight, gradient = (torch.stack(torch._foreach_norm(tensors)) for tensors in (params, gradients))
            ratio = group["trust_coefficient"] * weight / (gradient + decay * weight)
            ratio = torch.where((weight > 0) & (gradient > 0), ratio, 1.0)
            torch._foreach_mul_(updates, list(ratio.unbind()))
        states = [self.state[param] for param in params]
        for state, param in zip(states, params, strict=True):
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(param)
        buffers = [state["momentum"] for state in states]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(params, buffers, alpha=-group["lr"])


def build_optimizer(optim: OptimConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all weights of `module` that require a gradient; ValueError if there are none.

    Single numbers, such as a learnable temperature, are never decayed; lars also leaves out biases and norm
    layers. Each group has the share of the schedule's rate that its weights take as "share".
    """
    weights = {name: param for name, param in module.named_parameters() if param.requires_grad}
    if not weights:
        raise ValueError("nothing to train: every weight of the model is frozen")
    smallest = 2 if optim.optimizer == "lars" and optim.lars_exclude == "norm_bias" else 1
    groups: list[dict[str, object]] = []
    for lr_scale in sorted({optim.lr_scale(name) for name in weights}):
        own = [weight for name, weight in weights.items() if optim.lr_scale(name) == lr_scale]
        full = {"params": [w for w in own if w.ndim >= smallest], "weight_decay": optim.weight_decay}
        bare = {"params": [w for w in own if w.ndim < smallest], "weight_decay": 0.0}
        if optim.optimizer == "lars":
            bare["adapt"] = False
        groups += [group | {"share": lr_scale} for group in (full, bare) if group["params"]]
    return _OPTIMIZERS[optim.optimizer](optim, groups)


_OPTIMIZERS: dict[str, Callable[[OptimConfig, list[dict[str, object]]], torch.optim.Optimizer]] = {
    "lars": lambda o, groups: LARS(
        groups, lr=o.lr, momentum=o.momentum, trust_coefficient=o.trust_coefficient
    ),
    "adamw": lambda o, groups: torch.optim.AdamW(groups, lr=o.lr, fused=True),
    "adam": lambda o, groups: torch.optim.Adam(groups, lr=o.lr, fused=True),
    "sgd": lambda o, groups: torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum, fused=True),
}
