"""Learnable temperature, and what the objectives that have one share."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.objectives.base import PairObjective
from models.objectives.settings import TemperatureSettings

MIN_TEMPERATURE = 0.01  # Radford et al. 2021: below, training becomes unstable


class LearnableTemperature(nn.Module):
    """A positive, learned divisor of cosines, never below 0.01.

    The weight is log(1 / temperature), so that no step can make the temperature negative. As a single number
    it is excluded from weight decay (training.optim.build_optimizer).
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        if start < MIN_TEMPERATURE:
            raise ValueError(f"--temperature {start}: a learned one starts at {MIN_TEMPERATURE} or above")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(start)))

    def forward(self) -> Tensor:
        """Return the temperature, a scalar. In training, a weight outside its range is moved to the edge.

        Clamping the output alone would leave the weight outside, where its gradient is zero.
        """
        largest = -math.log(MIN_TEMPERATURE)
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=largest)
        return self.log_scale.clamp(max=largest).neg().exp()


class TemperatureObjective(PairObjective):
    """Base class of the objectives with a learnable temperature."""

    settings: TemperatureSettings

    def __init__(
        self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], settings: TemperatureSettings
    ) -> None:
        super().__init__(encoders, heads, settings)
        self.temperature = LearnableTemperature(settings.temperature)
