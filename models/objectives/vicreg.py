"""VICReg across modalities: invariance, variance and covariance terms."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.base import ObjectiveSettings, PairObjective, PublishedOptim


class VICReg(PairObjective):
    """Encoders and heads with models.losses.vicreg and the weights of its three terms."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        invariance: float,
        variance: float,
        covariance: float,
    ) -> None:
        super().__init__(encoders, heads)
        self.weights = (invariance, variance, covariance)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss", the three terms} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        return {**losses.vicreg(image, ehr, *self.weights), **self.metrics(image, ehr, batch)}


@dataclass(frozen=True)
class VICRegSettings(ObjectiveSettings):
    """Settings of VICReg."""

    name = "vicreg"
    title = "VICReg"
    published_optim = PublishedOptim("lars", lr=0.5989, warmup_epochs=10)

    invariance: float = 25.0
    """Weight of the distance between partners."""
    variance: float = 25.0
    """Weight of the features' lack of variance over a batch."""
    covariance: float = 1.0
    """Weight of the covariance between features."""

    def build(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> VICReg:
        """Build the objective around encoders and heads, by modality."""
        return VICReg(encoders, heads, self.invariance, self.variance, self.covariance)
