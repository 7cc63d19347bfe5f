"""Base class of the fusions that project the image feature to the width of the EHR feature."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import Fusion


class ProjectedFusion(Fusion):
    """Encoders of both modalities, and a linear layer from the image's width to the EHR's."""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(encoders)
        self.feature_dim = encoders["ehr"].feature_dim
        self.projection = nn.Linear(encoders["cxr"].feature_dim, self.feature_dim)

    def both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the EHR and the projected image features, [B, feature_dim] each; zeros without an image."""
        return self.encode_ehr(batch), self.encode_cxr(batch, self.projection)
