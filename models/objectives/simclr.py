"""SimCLR across modalities: a stay's EHR and its X-ray are each other's positive."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.losses import Denominator
from models.objectives.base import ObjectiveSettings, PairObjective, PublishedOptim


class SimCLR(PairObjective):
    """Encoders and heads with the contrastive loss models.losses.simclr."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        temperature: float,
        denominator: Denominator,
    ) -> None:
        super().__init__(encoders, heads)
        self.temperature = temperature
        self.denominator = denominator

    def pair_weights(self, batch: Batch) -> Tensor | None:
        """Return the weights [N] of all processes' pairs, or None for equal weights."""
        return None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss"} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        loss = losses.simclr(image, ehr, self.temperature, self.denominator, self.pair_weights(batch))
        return {"loss": loss, **self.metrics(image, ehr, batch)}


@dataclass(frozen=True)
class SimCLRSettings(ObjectiveSettings):
    """Settings of SimCLR."""

    name = "simclr"
    title = "SimCLR"
    published_optim = PublishedOptim("lars", lr=0.6044, warmup_epochs=10)

    temperature: float = 0.1
    """Divisor of the cosines, above 0."""
    denominator: Denominator = "decoupled"
    """decoupled leaves the positive out of the denominator (published), full keeps it (NT-Xent)."""

    def build(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> SimCLR:
        """Build the objective around encoders and heads, by modality."""
        return SimCLR(encoders, heads, self.temperature, self.denominator)
