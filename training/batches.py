"""The interface of batches that training and prediction rely on."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeVar

from torch import Tensor


class HasRow(Protocol):
    """A batch of b samples."""

    @property
    def row(self) -> Tensor:
        """[b] int64: the positions of the samples in their split."""


B = TypeVar("B", bound=HasRow)
B_co = TypeVar("B_co", bound=HasRow, covariant=True)


class Batches(Protocol[B_co]):
    """The data of a split: the same number of batches in every epoch and on every rank."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Generator[B_co, None, None]:
        """Yield the batches of an epoch from number `start` on; the same epoch gives the same batches."""
