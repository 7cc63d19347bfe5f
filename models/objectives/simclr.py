"""SimCLR across modalities: a stay's EHR and its X-ray are each other's positive."""

from __future__ import annotations

from torch import Tensor

from datasets.schema import Batch
from models import losses
from models.objectives.base import PairObjective
from models.objectives.settings import SimCLRSettings


class SimCLR(PairObjective):
    """Encoders and heads with the contrastive loss models.losses.simclr."""

    settings: SimCLRSettings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss"} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        loss = losses.simclr(image, ehr, self.settings.temperature, self.settings.denominator)
        return {"loss": loss, **self.metrics(image, ehr, batch)}
