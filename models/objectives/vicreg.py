"""VICReg across modalities: partners are near, and each feature varies, and tells what no other does."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.pairs import PairObjective


class VICReg(PairObjective):
    """Encoders and heads under models.losses.vicreg, with the weights of its three terms."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__(encoders, heads)
        self.weights = (invariance, variance, covariance)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Batch -> {"loss", its terms} and what PairObjective.measures."""
        image, ehr = self.pairs(batch)
        return {**losses.vicreg(image, ehr, *self.weights), **self.measures(image, ehr, batch)}
