"""Features of frozen encoders: every stay and every image is encoded once for all samples that read it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from datasets.schema import Batch, PrefixBatch
from models.encoders import EHREncoder
from models.fusion import LinearFusion
from models.heads import HeadedEncoder
from training.batches import Batches
from training.predict import predict


class Rows(Protocol):
    """What some samples read of one modality, each piece once (datasets.unique_inputs.UniqueInputs)."""

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

    def features_of(self, name: Hashable) -> Tensor:
        """[n, feature_dim] float32 of a set of samples, in their order, as `LinearFusion.features` has it."""
        return torch.cat([at_places(t, self.rows[m].places(name)) for m, t in self.tables.items()], dim=1)


def _encoded(encoder: nn.Module, batch: PrefixBatch | Batch) -> Tensor:
    if isinstance(batch, PrefixBatch):
        assert isinstance(encoder, EHREncoder | HeadedEncoder), "hours have prefixes"
        return encoder.prefix_features(batch.ehr, batch.stay, batch.last)
    feature: Tensor = encoder(batch.cxr)
    return feature


def at_places(features: Tensor, places: Tensor) -> Tensor:
    """[n, D] features and [m] places among them -> [m, D]; zeros at place -1, as for an absent image.

    >>> at_places(torch.tensor([[1.0], [2.0]]), torch.tensor([1, -1, 1, 0])).flatten().tolist()
    [2.0, 0.0, 2.0, 1.0]
    """
    found = features[places.to(features.device)]
    return found.masked_fill((places < 0).to(features.device)[:, None], 0.0)
