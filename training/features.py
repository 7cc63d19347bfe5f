"""Features of frozen encoders: each stay and each image is encoded once for all samples that use it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datasets.schema import Batch
from models.fusion import LinearFusion
from models.rows import take_rows
from training.batches import Batches
from training.predict import predict


class Inputs(Protocol):
    """The distinct inputs of one modality over sets of samples (datasets.features.UniqueInputs)."""

    @property
    def batches(self) -> Batches[Batch]:
        """Batches of the distinct inputs, in the evaluation view."""

    def rows_of(self, name: Hashable) -> Tensor:
        """[n] int64: the index of each sample's distinct input, -1 if it has none."""


class SharedFeatures:
    """Features of frozen encoders for sets of samples; each distinct input is encoded once, in eval mode."""

    def __init__(
        self,
        fusion: LinearFusion,
        inputs: Mapping[str, Inputs],
        device: torch.device,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Encode the inputs of each modality, but those whose features [count, D] are `known`."""
        fusion.eval()
        self.inputs = inputs
        self.device = device
        encode = {"ehr": fusion.encode_ehr, "cxr": fusion.encode_cxr}
        features = {
            name: predict(encode[name], inputs[name].batches)
            for name in fusion.modalities
            if name not in (known or {})
        }
        features |= known or {}
        self.features = {name: torch.from_numpy(features[name]).to(device) for name in fusion.modalities}

    def features_of(self, name: Hashable) -> Tensor:
        """[n, feature_dim] float32 for a set of samples, in their order, as from `LinearFusion.features`."""
        rows = {modality: part.rows_of(name).to(self.device) for modality, part in self.inputs.items()}
        parts = [take_rows(part, rows[modality]) for modality, part in self.features.items()]
        return torch.cat(parts, dim=1)
