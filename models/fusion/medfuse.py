"""MedFuse: an LSTM over the EHR feature and, if there is an image, its feature (Hayat et al. 2022)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder, run_lstm
from models.fusion.projected import ProjectedFusion

FUSED_DIM = 512


class MedFuse(ProjectedFusion):
    """A linear layer on the LSTM's hidden state after the last modality that a sample has."""

    title = "MedFuse"
    data_pairs = "partial"

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders)
        self.lstm = nn.LSTM(self.feature_dim, FUSED_DIM, batch_first=True)
        self.linear = nn.Linear(FUSED_DIM, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        after_ehr, after_image = run_lstm(self.lstm, torch.stack(self.both(batch), dim=1))[0].unbind(dim=1)
        # All samples take both steps; ignoring the second one needs no device sync for their lengths.
        logits: Tensor = self.linear(torch.where(batch.has_cxr[:, None], after_image, after_ehr))
        return logits
