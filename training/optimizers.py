"""PyTorch's optimizers, without the time that PyTorch's compiler takes to import.

The first call of most methods of `torch.optim.Optimizer` imports PyTorch's compiler, to be left alone by it:
1.4 of the 2 seconds that PyTorch itself takes. No optimizer is compiled here, so that the methods are taken
as they are below that layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import unwrap
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.taps import TapGradient, Taps, bring_up_to_date, by_taps

_zero_grad = unwrap(torch.optim.Optimizer.zero_grad)


class Uncompiled(torch.optim.Optimizer):
    """An optimizer that does not import PyTorch's compiler."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients; the memory of those that are zero but for some taps is used again."""
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = TapGradient.of(weight)
                if gradient is not None and set_to_none:
                    gradient.release()
        _zero_grad(self, set_to_none)


class Pieces(NamedTuple):
    """Views of a kernel and of its moments: of the taps that are updated, and of the kernel's other ones."""

    taps: Taps
    whole: list[Tensor]  # what they are views of, without a gradient
    updated: list[list[Tensor]]
    decayed: list[Tensor]


class SkipsUnseenTaps(Uncompiled, torch.optim.Adam):
    """Adam that passes over the taps of a convolution that never had a gradient only to decay them.

    Their moments are zero, and so is their update. Which they are is known of gradients that `models.taps`
    wrote, and of moments. Any other gradient updates all taps.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._updated: dict[Tensor, Taps] = {}  # taps that may have moments; read from these where unknown
        self._pieces: dict[Tensor, Pieces] = {}
        self.decays_late = False
        super().__init__(*args, **settings)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state, and forget which taps had moments."""
        super().load_state_dict(state_dict)
        self._updated.clear()
        self._pieces.clear()

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        """Gather what a step works on: of a kernel only the seen taps; decay the unseen ones."""
        is_complex = bool(super()._init_group(group, *lists))  # type: ignore[no-untyped-call]
        weights, gradients, means, squares, _, steps = lists
        decay = group["weight_decay"]
        if group["amsgrad"] or (decay and not group["decoupled_weight_decay"]):
            return is_complex
        for index, weight in enumerate(weights[:]):
            gradient, mean, square = gradients[index], means[index], squares[index]
            taps = self._taps_to_update(weight, gradient, mean, square, steps[index])
            if taps is None:
                continue
            pieces = self._pieces_of(weight, mean, square, taps)
            factor = 1 - group["lr"] * decay
            if self.decays_late and decay and pieces.decayed:
                TapGradient.made_for(weight).decay_late(weight, taps, factor)
            else:
                bring_up_to_date(weight)
                for rest in pieces.decayed if decay else ():
                    rest.mul_(factor)
            updated = [*pieces.updated, taps.pieces_of(by_taps(gradient))]
            for place, (first, *more) in zip((weights, means, squares, gradients), updated, strict=True):
                place[index] = first
                place += more
            steps += [steps[index].clone() for _ in updated[0][1:]]
        return is_complex

    def _pieces_of(self, weight: Tensor, mean: Tensor, square: Tensor, taps: Taps) -> Pieces:
        """Return the views of a weight and its moments, those of the last step if they still are right."""
        tensors = weight, mean, square
        known = self._pieces.get(weight)
        if known is None or known.taps != taps or not all(map(Tensor.is_set_to, tensors, known.whole)):
            updated = [taps.pieces_of(by_taps(tensor)) for tensor in tensors]
            whole = [tensor.detach() for tensor in tensors]
            known = Pieces(taps, whole, updated, taps.others_of(by_taps(weight)))
            if known.decayed:  # which no other device than a CPU has
                self._pieces[weight] = known
        return known

    def _taps_to_update(
        self, weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, steps: Tensor
    ) -> Taps | None:
        """Return the taps that may have a gradient or moments; None for weights without taps outermost."""
        if weight.ndim != 4 or not by_taps(weight).is_contiguous():
            return None
        if not gradient.stride() == weight.stride() == mean.stride() == square.stride():
            return None
        known = TapGradient.of(weight)
        if known is None:
            self._updated.pop(weight, None)
            return Taps.all_of(by_taps(weight))
        before = self._updated.get(weight)
        if before is None and steps > 0:  # moments that were loaded
            before = Taps.around(by_taps(mean), by_taps(square))
        self._updated[weight] = taps = known.taps.join(before) if before else known.taps
        return taps


class Adam(SkipsUnseenTaps, torch.optim.Adam):
    """Adam (Kingma and Ba 2015)."""

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class AdamW(SkipsUnseenTaps, torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class SGD(Uncompiled, torch.optim.SGD):
    """Stochastic gradient descent with momentum."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


@contextmanager
def late_decay(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Decay taps that no convolution reads for several steps at once, so that memory is passed over once.

    Whatever else reads the weights in this context calls `catch_up` before; its end does, too. The weights
    are then what they would be otherwise, to the last bit.
    """
    if not isinstance(optimizer, SkipsUnseenTaps):
        yield
        return
    optimizer.decays_late = True
    try:
        yield
    finally:
        optimizer.decays_late = False
        catch_up(optimizer)


def catch_up(optimizer: torch.optim.Optimizer) -> None:
    """Apply the decay that is due to the weights of an optimizer."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            bring_up_to_date(weight)
