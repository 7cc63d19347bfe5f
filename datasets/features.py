"""Batches of features that frozen encoders have computed, held in memory."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from datasets.schema import FeatureBatch


class FeatureBatches:
    """Batches of features in memory, with the interface of the batches that read a store.

    In training an epoch's order is a function of (seed, epoch) alone; in evaluation it is the samples'.
    Of each batch of `batch_size` rows, a rank takes a contiguous share; no row is dropped or repeated.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        seed: int = 0,
        train: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.features = features
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self.train = train
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        """Steps of an epoch; the last batch may be smaller."""
        return -(-len(self.features) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[FeatureBatch, None, None]:
        """This rank's share of every batch of an epoch, from step `start` on."""
        steps = self._order(epoch).split(self.batch_size)
        for rows in steps[start:]:
            mine = rows.tensor_split(self.world)[self.rank].to(self.features.device)
            yield FeatureBatch(self.features[mine], self.labels[mine], mine)

    def _order(self, epoch: int) -> Tensor:
        if not self.train:
            return torch.arange(len(self.features))
        return torch.from_numpy(np.random.default_rng((self.seed, epoch)).permutation(len(self.features)))
