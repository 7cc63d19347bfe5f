"""CLIP across modalities: SimCLR with the full denominator and a learned temperature."""

from torch import Tensor

from datasets.schema import Batch
from models import losses
from models.objectives.temperature import TemperatureObjective


class CLIP(TemperatureObjective):
    """Encoders and heads with models.losses.clip (Radford et al. 2021)."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss", "temperature"} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        temperature = self.temperature()
        loss = losses.clip(image, ehr, temperature)
        return {"loss": loss, "temperature": temperature.detach(), **self.metrics(image, ehr, batch)}
