"""Kernels of convolutions with the taps outermost in memory, and gradients that are zero outside some taps.

A 3 x 3 kernel sees a feature map of one pixel with one tap. The other taps' gradients are zero, and if they
always were, so are the moments of Adam. With the taps outermost, those that see the map lie together: they
are used and updated without passing over the others.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

NAME = "tap_gradient"  # attribute of a weight
LATE_STEPS = 32  # decays that taps are multiplied by at once
IN_CACHE = 2**17  # weights that a core keeps at hand, 0.5 MB


class Taps(NamedTuple):
    """The taps of some rows and columns of a kernel."""

    rows: tuple[int, int]  # start and end
    columns: tuple[int, int]

    def of(self, by_taps: Tensor) -> Tensor:
        """[kernel height, kernel width, in, out] -> [rows, columns, in, out], a view."""
        return by_taps[slice(*self.rows), slice(*self.columns)]

    def join(self, other: Taps) -> Taps:
        """Return the smallest rectangle that holds both.

        >>> Taps((1, 2), (1, 2)).join(Taps((1, 3), (1, 3)))
        Taps(rows=(1, 3), columns=(1, 3))
        """
        (top, bottom), (left, right) = self
        rows = min(top, other.rows[0]), max(bottom, other.rows[1])
        return Taps(rows, (min(left, other.columns[0]), max(right, other.columns[1])))

    @property
    def sides(self) -> tuple[int, int]:
        """The number of rows and columns."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @classmethod
    def all_of(cls, by_taps: Tensor) -> Self:
        """Return all taps of [height, width, in, out]."""
        return cls((0, by_taps.shape[0]), (0, by_taps.shape[1]))

    @classmethod
    def around(cls, *tensors: Tensor) -> Self | None:
        """Return the smallest rectangle of taps outside which tensors [height, width, in, out] are zero.

        >>> Taps.around(torch.eye(3).view(3, 3, 1, 1)[:2])
        Taps(rows=(0, 2), columns=(0, 2))
        """
        used = torch.stack([tensor.flatten(2).any(2) for tensor in tensors]).any(0)
        if not used.any():
            return None
        rows, columns = (used.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        return cls((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))

    def pieces_of(self, by_taps: Tensor) -> list[Tensor]:
        """Return the taps of a contiguous [height, width, in, out] as contiguous views."""
        inside = self.of(by_taps)
        return [inside] if inside.is_contiguous() else list(inside.unbind())

    def matrices_of(self, by_taps: Tensor) -> list[Tensor]:
        """Return the taps of [height, width, in, out] as matrices [taps x in, out], in their order.

        They are views where that tensor is contiguous, and one copied matrix where it is not.
        """
        if not by_taps.is_contiguous():
            return [self.of(by_taps).flatten(0, 2)]
        return [piece.flatten(0, -2) for piece in self.pieces_of(by_taps)]

    def others_of(self, by_taps: Tensor) -> list[Tensor]:
        """Return all other taps of [height, width, in, out] as views."""
        (top, bottom), (left, right) = self
        middle = by_taps[top:bottom]
        parts = by_taps[:top], by_taps[bottom:], middle[:, :left], middle[:, right:]
        return [part for part in parts if part.numel()]


def by_taps(kernel: Tensor) -> Tensor:
    """[out, in, kernel height, kernel width] -> [kernel height, kernel width, in, out], a view."""
    return kernel.permute(2, 3, 1, 0)


def put_taps_outermost(weight: Tensor) -> None:
    """Reorder a kernel [out, in, kernel height, kernel width] in memory, so that `by_taps` is contiguous."""
    weight.data = by_taps(weight.data).contiguous().permute(3, 2, 0, 1)


class TapGradient:
    """The gradient of one kernel: memory that is kept from step to step, zero but for some taps.

    It knows whether a weight's `grad` still is what the last backward pass wrote: not if it was summed with
    another gradient, clipped, or sent to other processes. Only then the zeros are known to be zeros.
    """

    def __init__(self) -> None:
        self.taps = Taps((0, 0), (0, 0))
        self.memory: Tensor | None = None
        self.version = 0
        self.is_free = False
        self.seen: Taps | None = None  # all taps but these are to be multiplied by `factors`
        self.factors: list[float] = []

    @classmethod
    def of(cls, weight: Tensor) -> Self | None:
        """Return what is known of a weight's `grad`; None unless it is as the backward pass wrote it."""
        known: Self | None = getattr(weight, NAME, None)
        return known if known is not None and known._is_gradient_of(weight) else None

    @classmethod
    def made_for(cls, weight: Tensor) -> Self:
        """Return a weight's own object, a new one for the first time."""
        known: Self | None = getattr(weight, NAME, None)
        if known is None:
            known = cls()
            setattr(weight, NAME, known)
        return known

    def _is_gradient_of(self, weight: Tensor) -> bool:
        gradient, memory = weight.grad, self.memory
        if gradient is None or memory is None or self.is_free:
            return False
        return gradient.is_set_to(memory) and memory._version == self.version

    def write_product(self, left: Tensor, right: Tensor, taps: Taps, weight: Tensor) -> Tensor:
        """Return a gradient in the order of a weight: left.T @ right for some taps, zero for all others.

        left: [N, taps x in]. right: [N, out]. The product is computed in its place.
        """
        memory = self.memory
        if memory is None or not self.is_free or _layout(memory) != _layout(weight):
            self.memory = memory = torch.zeros_like(weight)
        elif self.taps != taps:
            self.taps.of(by_taps(memory)).zero_()
        matrices = taps.matrices_of(by_taps(memory))
        for matrix, part in zip(matrices, left.chunk(len(matrices), 1), strict=True):
            if right.dtype == memory.dtype:
                torch.mm(part.mT.to(right.dtype), right, out=matrix)
            else:
                matrix.copy_(part.mT.to(right.dtype) @ right)
        self.taps, self.version, self.is_free = taps, memory._version, False
        return memory.detach()

    def release(self) -> None:
        """Let the next backward pass overwrite this gradient."""
        self.is_free = True

    def decay_late(self, weight: Tensor, seen: Taps, factor: float) -> None:
        """Multiply all taps but those that are seen by a factor: later, by several factors in one pass."""
        if seen != self.seen or len(self.factors) == LATE_STEPS:
            self.catch_up(weight)
        self.seen = seen
        self.factors.append(factor)

    def catch_up(self, weight: Tensor) -> None:
        """Multiply by the factors that are due: one after the other, as each step would have done."""
        if self.seen is not None:
            for rest in self.seen.others_of(by_taps(weight.detach())):
                for row in rest:
                    for part in row.flatten().split(IN_CACHE) if row.is_contiguous() else [row]:
                        for factor in self.factors:
                            part.mul_(factor)
        self.seen = None
        self.factors.clear()


def bring_up_to_date(weight: Tensor, seen: Taps | None = None) -> None:
    """Multiply the taps of a weight by the decay that is due, unless only those are read that are seen."""
    known: TapGradient | None = getattr(weight, NAME, None)
    if known is not None and known.seen != seen:
        known.catch_up(weight)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.device, tensor.stride()
