"""VICReg across modalities: invariance, variance and covariance terms."""

from __future__ import annotations

from torch import Tensor

from datasets.schema import Batch
from models import losses
from models.objectives.base import PairObjective
from models.objectives.settings import VICRegSettings


class VICReg(PairObjective):
    """Encoders and heads with models.losses.vicreg."""

    settings: VICRegSettings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss", the three terms} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        weights = (self.settings.invariance, self.settings.variance, self.settings.covariance)
        return {**losses.vicreg(image, ehr, *weights), **self.metrics(image, ehr, batch)}
