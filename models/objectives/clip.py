"""CLIP across modalities: SimCLR with the full denominator and a learned temperature."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.temperature import TemperatureObjective, TemperatureSettings


class CLIP(TemperatureObjective):
    """Encoders and heads with models.losses.clip (Radford et al. 2021)."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss", "temperature"} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        temperature = self.temperature()
        loss = losses.clip(image, ehr, temperature)
        return {"loss": loss, "temperature": temperature.detach(), **self.metrics(image, ehr, batch)}


@dataclass(frozen=True)
class CLIPSettings(TemperatureSettings):
    """Settings of CLIP."""

    name = "clip"
    title = "CLIP"

    temperature: float = 0.07
    """Start of the learned divisor of the cosines, 0.01 or above."""

    def build(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> CLIP:
        """Build the objective around encoders and heads, by modality."""
        return CLIP(encoders, heads, self.temperature)
