"""EHR alone."""

from torch import Tensor

from datasets.schema import Batch
from models.fusion.linear import LinearFusion


class EHR(LinearFusion):
    """The EHR encoder's feature; images are not looked at."""

    modalities = ("ehr",)

    def features(self, batch: Batch) -> Tensor:
        """Batch of B samples -> [B, ehr_dim]."""
        return self.ehr_encoder(batch.ehr)
