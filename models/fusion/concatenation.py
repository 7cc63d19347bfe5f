"""Both features side by side."""

import torch
from torch import Tensor

from datasets.schema import Batch
from models.encoders import at_present_rows
from models.fusion.linear import LinearFusion


class Concatenation(LinearFusion):
    """EHR feature, then image feature; an absent image is a vector of zeros, whatever the others show."""

    modalities = ("ehr", "cxr")

    def features(self, batch: Batch) -> Tensor:
        """Batch of B samples -> [B, 128 + 512]."""
        image = at_present_rows(self.cxr_encoder(batch.cxr), batch.has_cxr)
        return torch.cat([self.ehr_encoder(batch.ehr), image], dim=1)
