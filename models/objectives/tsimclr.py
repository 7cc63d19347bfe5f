"""T-SimCLR (MedCLR): SimCLR whose pairs count by the time between the image and the prediction."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.pairs import PairObjective
from utils.distributed import gather_with_gradient


class TSimCLR(PairObjective):
    """Encoders and heads under models.losses.simclr, each pair weighted by models.losses.gap_weight."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        temperature: float = 0.1,
        denominator: losses.Denominator = "decoupled",
        k: float = 2.0,
    ) -> None:
        super().__init__(encoders, heads)
        self.temperature = temperature
        self.denominator = denominator
        self.k = k

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Batch -> {"loss"} and what PairObjective.measures."""
        image, ehr = self.pairs(batch)
        days = gather_with_gradient(batch.gap_days[batch.has_cxr])
        weight = losses.gap_weight(days, self.k)
        loss = losses.simclr(image, ehr, self.temperature, self.denominator, weight)
        return {"loss": loss, **self.measures(image, ehr, batch)}
