"""Base class of the fusions that are one linear layer on the features of their encoders."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import Fusion


class LinearFusion(Fusion):
    """Encoders and one linear layer on their features, the only fusions that linear evaluation can use.

    Linear evaluation computes the features once, one encoder at a time, and trains `linear` alone. Therefore
    subclasses must not change `features`.
    """

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders)
        self.feature_dim = sum(encoders[name].feature_dim for name in self.modalities)
        self.linear = nn.Linear(self.feature_dim, outputs)

    def features(self, batch: Batch) -> Tensor:
        """Concatenate the features in the order of `modalities`, [B, feature_dim]; zeros without an image."""
        encode = {"ehr": self.encode_ehr, "cxr": self.encode_cxr}
        return torch.cat([encode[modality](batch) for modality in self.modalities], dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        logits: Tensor = self.linear(self.features(batch))
        return logits
