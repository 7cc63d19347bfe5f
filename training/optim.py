"""Optimizers, and the learning rate as a function of progress alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from utils.config import searched
from utils.log import logger

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    """How the weights are optimized, and for how many epochs."""

    synonyms: ClassVar = {
        "learning_rate": "lr",
        "wd": "weight_decay",
        "l2": "weight_decay",
        "max_epochs": "epochs",
        "num_train_epochs": "epochs",
        "iterations": "epochs",
        "scheduler": "schedule",
        "lr_scheduler": "schedule",
        "gradient_clipping": "clip",
        "max_grad_norm": "clip",
    }

    optimizer: Literal["lars", "adamw", "adam", "sgd"] = "adamw"
    """Optimizer; lars is meant for pretraining with large batches, and scales steps also without decay."""
    lr: float = searched(1e-3, 1e-5, 1e-2, log=True)
    """Peak learning rate, reached after the warm-up. It applies to the batch over all GPUs and is not scaled
    with the batch size."""
    weight_decay: float = searched(0.01, 1e-5, 0.1, log=True)
    """Weight decay per unit of learning rate; decoupled in adamw, added to the gradient in the others."""
    momentum: float = 0.9
    """Momentum of lars and sgd, 0 to 1; adam and adamw use betas (0.9, 0.999)."""
    epochs: int = 300
    """Maximum number of epochs; early stopping may end the training before."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate grows linearly from 0 to --lr, step by step."""
    schedule: Literal["cosine", "step", "constant", "plateau"] = "step"
    """After the warm-up: cosine decays to 0 at the last step; step multiplies by --gamma at each milestone;
    plateau multiplies by --gamma when the monitor has not improved for --plateau_patience epochs."""
    milestones: tuple[float, ...] = (0.6, 0.8)
    """When --schedule step lowers the learning rate, as fractions of --epochs."""
    gamma: float = 0.1
    """Factor of --schedule step and plateau."""
    plateau_patience: int = 10
    """Epochs without improvement before --schedule plateau lowers the learning rate."""
    clip: float = 0.0
    """Maximum norm of the gradient over all weights; 0 does not clip."""
    lars_exclude: Literal["norm_bias", "none"] = "norm_bias"
    """What lars neither scales nor decays: biases and normalization layers, or (as published) nothing."""
    trust_coefficient: float = 1e-3
    """Trust coefficient of lars: norm of a tensor's update relative to the norm of the tensor, times the
    learning rate."""

    def __post_init__(self) -> None:
        check_flag("lr", self.lr, self.lr > 0, "use a number above 0")
        check_flag("epochs", self.epochs, self.epochs >= 1, "use 1 or more")
        check_flag(
            "warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0, "use 0 or more; 0 is no warm-up"
        )
        check_flag("weight_decay", self.weight_decay, self.weight_decay >= 0, "use 0 or more; 0 is no decay")
        check_flag("momentum", self.momentum, 0 <= self.momentum < 1, "use 0 or more, and less than 1")
        check_flag("clip", self.clip, self.clip >= 0, "use 0 or more; 0 does not clip")
        check_flag("gamma", self.gamma, 0 < self.gamma <= 1, "use a number above 0, up to 1")
        in_range = all(0 < fraction < 1 for fraction in self.milestones)
        check_flag("milestones", self.milestones, in_range, "use fractions between 0 and 1")
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"--epochs {self.epochs}: the warm-up, --warmup_epochs {self.warmup_epochs:g}, must not be "
                "longer; use --warmup_epochs 0, or more epochs"
            )


def check_flag(name: str, value: object, valid: bool, cure: str) -> None:
    """Raise ValueError, naming the flag and the cure, unless its value is valid."""
    if not valid:
        raise ValueError(f"--{name} {value} is out of range; {cure}")


# Flags that some choices alone read: the flag that chooses, and its values that read them.
READ_BY = {
    "momentum": ("optimizer", ("lars", "sgd")),
    "lars_exclude": ("optimizer", ("lars",)),
    "trust_coefficient": ("optimizer", ("lars",)),
    "milestones": ("schedule", ("step",)),
    "gamma": ("schedule", ("step", "plateau")),
    "plateau_patience": ("schedule", ("plateau",)),
}


def warn_of_unused_flags(config: OptimConfig) -> None:
    """Warn of flags that the optimizer or the schedule does not read; a script may hold those of another."""
    for choice in ("optimizer", "schedule"):
        chosen = getattr(config, choice)
        unused = [
            flag for flag, (reader, values) in READ_BY.items() if reader == choice and chosen not in values
        ]
        given = [f"--{flag}" for flag in unused if getattr(config, flag) != getattr(OptimConfig, flag)]
        if given:
            logger.warning(f"--{choice} {chosen} does not read {' and '.join(given)}; leave that out")


def learning_rate(
    config: OptimConfig, epoch: int, step: int, steps_per_epoch: int, lr_drops: int = 0
) -> float:
    """Return the learning rate of step `step` of epoch `epoch`, both counted from 0.

    `lr_drops` is the number of times that --schedule plateau has lowered the rate; no other schedule uses it.
    """
    done = epoch * steps_per_epoch + step
    warmup_steps = config.warmup_epochs * steps_per_epoch
    if done < warmup_steps:
        return config.lr * min(1.0, (done + 1) / warmup_steps)
    if config.schedule == "cosine":
        last_step = config.epochs * steps_per_epoch - 1
        decayed = (done - warmup_steps) / max(last_step - warmup_steps, 1)
        return config.lr * ((1 + math.cos(math.pi * decayed)) / 2)
    if config.schedule == "step":
        lr_drops = sum(epoch >= round(config.epochs * fraction) for fraction in config.milestones)
    elif config.schedule == "constant":
        lr_drops = 0
    return config.lr * config.gamma**lr_drops


def build_optimizer(
    config: OptimConfig, module: nn.Module, lr_scales: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer of all weights of `module` that require a gradient; ValueError if none does.

    Single numbers, such as a learnable temperature, are never decayed; lars also does not decay or scale
    biases and normalization layers, unless --lars_exclude is none. Each group's "lr_scale" is its learning
    rate as a multiple of the schedule's, from `lr_scales` or 1.
    """
    lr_scales = lr_scales or {}
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError("nothing to train: every weight of the model is frozen")
    smallest_ndim = 2 if config.optimizer == "lars" and config.lars_exclude == "norm_bias" else 1
    groups: list[dict[str, object]] = []
    for lr_scale in sorted({lr_scales.get(weight, 1.0) for weight in weights}):
        scaled = [weight for weight in weights if lr_scales.get(weight, 1.0) == lr_scale]
        decayed = [weight for weight in scaled if weight.ndim >= smallest_ndim]
        excluded = [weight for weight in scaled if weight.ndim < smallest_ndim]
        if decayed:
            groups.append({"params": decayed, "weight_decay": config.weight_decay, "lr_scale": lr_scale})
        if excluded:
            groups.append({"params": excluded, "weight_decay": 0.0, "lr_scale": lr_scale, "adapt": False})
    return _optimizer(config, groups)


def _optimizer(config: OptimConfig, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
    from training.lars import LARS  # with torch, which --help does not need
    from training.optimizers import SGD, Adam, AdamW

    if config.optimizer == "lars":
        return LARS(
            groups, lr=config.lr, momentum=config.momentum, trust_coefficient=config.trust_coefficient
        )
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    adam = AdamW if config.optimizer == "adamw" else Adam
    return adam(groups, lr=config.lr, fused=True)
