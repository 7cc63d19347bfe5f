"""SigLIP across modalities: each image and EHR are classified as a pair or not."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.settings import TemperatureSettings
from models.objectives.temperature import TemperatureObjective

BIAS = -10.0  # Zhai et al. 2023: most combinations are not pairs, which the first steps then need not learn


class SigLIP(TemperatureObjective):
    """Encoders and heads with models.losses.siglip; temperature and bias are learned (Zhai et al. 2023)."""

    def __init__(
        self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], settings: TemperatureSettings
    ) -> None:
        super().__init__(encoders, heads, settings)
        self.bias = nn.Parameter(torch.tensor(BIAS))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss", "temperature", "bias"} and PairObjective.metrics."""
        image, ehr = self.pairs(batch)
        temperature = self.temperature()
        loss = losses.siglip(image, ehr, temperature, self.bias)
        learned = {"temperature": temperature.detach(), "bias": self.bias.detach()}
        return {"loss": loss, **learned, **self.metrics(image, ehr, batch)}
