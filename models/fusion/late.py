"""Late fusion: two unimodal classifiers, whose probabilities are averaged."""

from collections.abc import Mapping

import torch
from torch import nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import BranchLogits, Fusion


class Late(Fusion):
    """A linear layer on each encoder; a sample without an image gets the EHR branch's probability.

    Each branch has its own cross-entropy, the image's on the samples that have one. So both are trained as
    they would be alone, and neither compensates for the other as under a loss of the average.
    """

    title = "late fusion"

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders)
        self.ehr_linear = nn.Linear(encoders["ehr"].feature_dim, outputs)
        self.cxr_linear = nn.Linear(encoders["cxr"].feature_dim, outputs)

    def forward(self, batch: Batch) -> BranchLogits:
        """Map a batch of B samples to the logits [2, B, outputs] of the EHR and the image branch."""
        ehr = self.ehr_linear(self.encode_ehr(batch))
        image = self.encode_cxr(batch, self.cxr_linear)
        return BranchLogits(torch.stack([ehr, image]), torch.stack([batch.has_ehr, batch.has_cxr]))
