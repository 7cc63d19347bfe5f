"""Joint fusion: EHR feature and projected image feature side by side, all learnt together."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.projected import ProjectedFusion


class Joint(ProjectedFusion):
    """One linear layer on both features, the image's at the EHR's width; zeros for an absent image."""

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders)
        self.linear = nn.Linear(2 * self.feature_dim, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Batch of B samples -> logits [B, outputs]."""
        logits: Tensor = self.linear(torch.cat(self.both(batch), dim=1))
        return logits
