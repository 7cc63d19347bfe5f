"""Joint fusion: the EHR feature and the projected image feature, concatenated and trained together."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.projected import ProjectedFusion


class Joint(ProjectedFusion):
    """One linear layer on the EHR feature and the projected image feature; zeros for an absent image."""

    title = "joint fusion"

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders)
        self.linear = nn.Linear(2 * self.feature_dim, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        logits: Tensor = self.linear(torch.cat(self.both(batch), dim=1))
        return logits
