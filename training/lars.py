"""LARS: SGD with momentum whose step of each tensor is proportional to that tensor's norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import overload

import torch
from torch import Tensor

from training.optimizers import Uncompiled


class LARS(Uncompiled):
    """Layer-wise adaptive rate scaling (You et al. 2017, https://arxiv.org/abs/1708.03888).

    The ratio is trust * |w| / (|g| + decay * |w|), as published, also where the decay is 0: then it is
    trust * |w| / |g|. Other implementations leave it out there, and are plain SGD without decay. Groups with
    `adapt` False are plain SGD with momentum. The momentum buffer is not yet multiplied by the
    learning rate, so a change takes effect at once. Updates all tensors of a group at once by the private
    functions `torch._foreach_*`, as PyTorch's optimizers do; `timm.optim.Lars` loops over the tensors.
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
        """Update every tensor that has a gradient; return the closure's loss, if there is a closure."""
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
