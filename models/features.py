"""Features of frozen encoders, computed once, and batches of them for a linear layer to learn from."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from datasets.schema import Batch, PrefixBatch
from models.encoders import EHREncoder
from models.fusion import LinearFusion
from models.heads import HeadedEncoder
from utils.loop import Batches, predict


class FeatureBatch(NamedTuple):
    """Features [B, D] float32 in place of the modalities of a Batch; labels [B, L] and row [B] as there."""

    features: Tensor
    labels: Tensor
    row: Tensor


class OnFeatures(nn.Module):
    """The linear layer of a fusion, fed with its features: FeatureBatch -> logits [B, outputs]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, batch: FeatureBatch) -> Tensor:
        """FeatureBatch of B samples -> logits [B, outputs]."""
        logits: Tensor = self.linear(batch.features)
        return logits


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


class Rows(Protocol):
    """What some samples read of one modality, each piece once (datasets.distinct.SharedRows)."""

    @property
    def batches(self) -> Batches[PrefixBatch | Batch]:
        """Batches of the distinct pieces: PrefixBatch for "ehr", Batch for "cxr"."""

    def places(self, name: Hashable) -> Tensor:
        """[n] int64: where each sample of a set has its own among the pieces, -1 if it has none."""


class SharedFeatures:
    """Features of frozen encoders for several sets of samples; every stay and every image is encoded once.

    Batches that see the images by the evaluation view give features that can stand for the samples. Leaves
    the encoders in eval mode.
    """

    def __init__(self, fusion: LinearFusion, rows: Mapping[str, Rows], device: torch.device) -> None:
        fusion.eval()
        self.rows = rows
        self.tables = {
            name: torch.from_numpy(
                predict(partial(_encoded, fusion.get_submodule(f"{name}_encoder")), rows[name].batches)
            ).to(device)
            for name in fusion.modalities
        }

    def of(self, name: Hashable) -> Tensor:
        """[n, feature_dim] float32 of a set of samples, in their order, as `LinearFusion.features` has it."""
        return torch.cat([at_places(t, self.rows[m].places(name)) for m, t in self.tables.items()], dim=1)


def _encoded(encoder: nn.Module, batch: PrefixBatch | Batch) -> Tensor:
    if isinstance(batch, PrefixBatch):
        assert isinstance(encoder, EHREncoder | HeadedEncoder), "hours have prefixes"
        return encoder.at(batch.ehr, batch.stay, batch.last)
    feature: Tensor = encoder(batch.cxr)
    return feature


def at_places(features: Tensor, places: Tensor) -> Tensor:
    """[n, D] features and [m] places among them -> [m, D]; zeros at place -1, as for an absent image.

    >>> at_places(torch.tensor([[1.0], [2.0]]), torch.tensor([1, -1, 1, 0])).flatten().tolist()
    [2.0, 0.0, 2.0, 1.0]
    """
    found = features[places.to(features.device)]
    return found.masked_fill((places < 0).to(features.device)[:, None], 0.0)
