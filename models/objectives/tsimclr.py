"""T-SimCLR (MedCLR): SimCLR whose pairs are weighted by the time between image and prediction."""

from __future__ import annotations

from torch import Tensor

from datasets.schema import Batch
from models import losses
from models.objectives.settings import TSimCLRSettings
from models.objectives.simclr import SimCLR
from utils.distributed import gather_with_gradient


class TSimCLR(SimCLR):
    """SimCLR with a weight for each pair, models.losses.gap_weight."""

    settings: TSimCLRSettings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss"} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        days = gather_with_gradient(batch.gap_days.index_select(0, batch.paired))
        weight = losses.gap_weight(days, self.settings.k)
        loss = losses.simclr(image, ehr, self.settings.temperature, self.settings.denominator, weight)
        return {"loss": loss, **self.metrics(image, ehr, batch)}
