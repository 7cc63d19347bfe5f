"""SimCLR across modalities: a stay's EHR and its X-ray are each other's positive."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datasets.schema import Batch
from models import losses
from models.losses import Denominator
from models.objectives.base import ObjectiveSettings, PairObjective, PublishedOptim


class SimCLR(PairObjective):
    """Encoders and heads with the contrastive loss models.losses.simclr."""

    settings: SimCLRSettings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss"} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        loss = losses.simclr(image, ehr, self.settings.temperature, self.settings.denominator)
        return {"loss": loss, **self.metrics(image, ehr, batch)}


@dataclass(frozen=True)
class SimCLRSettings(ObjectiveSettings):
    """Settings of SimCLR."""

    name = "simclr"
    title = "SimCLR"
    module = SimCLR
    published_optim = PublishedOptim("lars", lr=0.6044, warmup_epochs=10)

    temperature: float = 0.1
    """Divisor of the cosines, above 0."""
    denominator: Denominator = "decoupled"
    """decoupled leaves the positive out of the denominator (published); full keeps it, which is twice CLIP's
    loss. Neither has the negatives of NT-Xent within a modality."""
