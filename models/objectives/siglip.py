"""SigLIP across modalities: each image and EHR is asked alone whether they are a pair."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.pairs import PairObjective
from models.objectives.temperature import LearnableTemperature

BIAS = -10.0  # Zhai et al. 2023: most couples are no pair, and the first steps need not learn it


class SigLIP(PairObjective):
    """Encoders and heads under models.losses.siglip, temperature and bias learnt (Zhai et al. 2023)."""

    def __init__(
        self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], temperature: float = 0.1
    ) -> None:
        super().__init__(encoders, heads)
        self.temperature = LearnableTemperature(temperature)
        self.bias = nn.Parameter(torch.tensor(BIAS))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Batch -> {"loss", "temperature", "bias"} and what PairObjective.measures."""
        image, ehr = self.pairs(batch)
        temperature = self.temperature()
        loss = losses.siglip(image, ehr, temperature, self.bias)
        learnt = {"temperature": temperature.detach(), "bias": self.bias.detach()}
        return {"loss": loss, **learnt, **self.measures(image, ehr, batch)}
