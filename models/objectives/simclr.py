"""SimCLR across modalities: a stay's EHR and its X-ray are each other's positive."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.pairs import PairObjective


class SimCLR(PairObjective):
    """Encoders and heads under the contrastive loss of models.losses.simclr."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        temperature: float = 0.1,
        denominator: losses.Denominator = "decoupled",
    ) -> None:
        super().__init__(encoders, heads)
        self.temperature = temperature
        self.denominator = denominator

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Batch -> {"loss"} and what PairObjective.measures."""
        image, ehr = self.pairs(batch)
        loss = losses.simclr(image, ehr, self.temperature, self.denominator)
        return {"loss": loss, **self.measures(image, ehr, batch)}
