"""What the fusions share that bring the image's feature to the width of the EHR's."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder, scatter_rows
from models.fusion.base import Fusion


class ProjectedFusion(Fusion):
    """Encoders of both modalities, and a linear layer from the image's width to the EHR's."""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(encoders)
        self.feature_dim = encoders["ehr"].feature_dim
        self.projection = nn.Linear(encoders["cxr"].feature_dim, self.feature_dim)

    def both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Batch of B samples -> EHR features, projected image features: [B, feature_dim] each.

        An absent image is a vector of zeros, after the projection.
        """
        image = self.projection(self.cxr_encoder(batch.cxr))
        return self.ehr_encoder(batch.ehr), scatter_rows(image, batch.has_cxr)
