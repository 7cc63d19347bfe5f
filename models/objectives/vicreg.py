"""VICReg across modalities: invariance, variance and covariance terms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datasets.schema import Batch
from models import losses
from models.objectives.base import ObjectiveSettings, PairObjective, PublishedOptim


class VICReg(PairObjective):
    """Encoders and heads with models.losses.vicreg."""

    settings: VICRegSettings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss", the three terms} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        weights = (self.settings.invariance, self.settings.variance, self.settings.covariance)
        return {**losses.vicreg(image, ehr, *weights), **self.metrics(image, ehr, batch)}


@dataclass(frozen=True)
class VICRegSettings(ObjectiveSettings):
    """Settings of VICReg."""

    name = "vicreg"
    title = "VICReg"
    module = VICReg
    published_optim = PublishedOptim("lars", lr=0.5989, warmup_epochs=10)

    invariance: float = 25.0
    """Weight of the distance between partners."""
    variance: float = 25.0
    """Weight of the features' lack of variance over a batch."""
    covariance: float = 1.0
    """Weight of the covariance between features."""
