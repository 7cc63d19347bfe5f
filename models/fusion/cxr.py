"""Chest X-ray alone."""

from torch import Tensor

from datasets.schema import Batch
from models.encoders import at_present_rows
from models.fusion.linear import LinearFusion


class CXR(LinearFusion):
    """The image encoder's feature; zeros for a sample without an image, so that its logits are the bias."""

    modalities = ("cxr",)

    def features(self, batch: Batch) -> Tensor:
        """Batch of B samples -> [B, 512]."""
        return at_present_rows(self.cxr_encoder(batch.cxr), batch.has_cxr)
