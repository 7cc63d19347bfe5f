"""Features of frozen encoders: each stay and each image is encoded once for all samples that use it."""

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


class Inputs(Protocol):
    """The distinct inputs of one modality over sets of samples (datasets.features.UniqueInputs)."""

    @property
    def batches(self) -> Batches[PrefixBatch | Batch]:
        """Batches of the distinct inputs: PrefixBatch for "ehr"; Batch, in the evaluation view, for "cxr"."""

    def rows_of(self, name: Hashable) -> Tensor:
        """[n] int64: the index of each sample's distinct input, -1 if it has none."""


class SharedFeatures:
    """Features of frozen encoders for sets of samples; each distinct input is encoded once, in eval mode."""

    def __init__(self, fusion: LinearFusion, inputs: Mapping[str, Inputs], device: torch.device) -> None:
        fusion.eval()
        self.inputs = inputs
        self.features = {
            name: torch.from_numpy(
                predict(partial(_encode, fusion.get_submodule(f"{name}_encoder")), inputs[name].batches)
            ).to(device)
            for name in fusion.modalities
        }

    def features_of(self, name: Hashable) -> Tensor:
        """[n, feature_dim] float32 for a set of samples, in their order, as from `LinearFusion.features`."""
        parts = [take_rows(part, self.inputs[m].rows_of(name)) for m, part in self.features.items()]
        return torch.cat(parts, dim=1)


def _encode(encoder: nn.Module, batch: PrefixBatch | Batch) -> Tensor:
    if isinstance(batch, PrefixBatch):
        assert isinstance(encoder, EHREncoder | HeadedEncoder), "only hours have prefixes"
        return encoder.prefix_features(batch.ehr, batch.stay, batch.last)
    feature: Tensor = encoder(batch.cxr)
    return feature


def take_rows(features: Tensor, index: Tensor) -> Tensor:
    """Take rows [m] of features [n, D] -> [m, D]; index -1 gives zeros, as for an absent image.

    >>> take_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1, -1, 1, 0])).flatten().tolist()
    [2.0, 0.0, 2.0, 1.0]
    """
    index = index.to(features.device)
    return features[index].masked_fill((index < 0)[:, None], 0.0)
