"""What the fusions share that are one linear layer on the features of their encoders."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder, scatter_rows
from models.fusion.base import Fusion


class LinearFusion(Fusion):
    """Encoders and one linear layer on their features; nothing else, so that linear evaluation can take it.

    Linear evaluation computes the features once, an encoder at a time, and trains `linear` alone. So the
    features are what `features` says, whatever the fusion.
    """

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders)
        self.feature_dim = sum(encoders[name].feature_dim for name in self.modalities)
        self.linear = nn.Linear(self.feature_dim, outputs)

    def features(self, batch: Batch) -> Tensor:
        """Batch of B samples -> [B, feature_dim]: those of the encoders side by side, in the order of
        `modalities`; an absent image is a vector of zeros, whatever the others show.
        """
        read = {
            "ehr": lambda: self.ehr_encoder(batch.ehr),
            "cxr": lambda: scatter_rows(self.cxr_encoder(batch.cxr), batch.has_cxr),
        }
        return torch.cat([read[name]() for name in self.modalities], dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Batch of B samples -> logits [B, outputs]."""
        logits: Tensor = self.linear(self.features(batch))
        return logits
