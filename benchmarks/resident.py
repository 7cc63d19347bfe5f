"""Batches that are where the model is already: the limit of any way to bring them there."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Generic, Self, TypeVar

from training.batches import Batches, HasRow

B = TypeVar("B", bound=HasRow)


class Resident(Generic[B]):
    """The same batches each epoch."""

    def __init__(self, batches: Sequence[B]) -> None:
        self.batches = batches

    @classmethod
    def of(cls, batches: Batches[B], epoch: int = 0) -> Self:
        """All batches of an epoch."""
        with closing(batches.epoch(epoch)) as stream:
            return cls(list(stream))

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Generator[B, None, None]:
        """Yield the batches from number `start` on."""
        yield from self.batches[start:]
