"""CLIP across modalities: SimCLR with the full denominator and a learnt temperature."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.pairs import PairObjective
from models.objectives.temperature import LearnableTemperature


class CLIP(PairObjective):
    """Encoders and heads under models.losses.clip (Radford et al. 2021)."""

    def __init__(
        self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], temperature: float = 0.07
    ) -> None:
        super().__init__(encoders, heads)
        self.temperature = LearnableTemperature(temperature)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Batch -> {"loss", "temperature"} and what PairObjective.measures."""
        image, ehr = self.pairs(batch)
        temperature = self.temperature()
        loss = losses.clip(image, ehr, temperature)
        return {"loss": loss, "temperature": temperature.detach(), **self.measures(image, ehr, batch)}
