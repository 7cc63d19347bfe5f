"""A temperature that is learnt."""

import math

import torch
from torch import Tensor, nn

SMALLEST = 0.01  # Radford et al. 2021: below, training becomes unstable


class LearnableTemperature(nn.Module):
    """A positive divisor of cosines that the training moves, never below 0.01.

    The weight is log(1 / temperature), so that no step makes the temperature negative; a single number, it is
    left out of weight decay (training.optim.build). ValueError for a start below 0.01.

    >>> round(LearnableTemperature(0.07)().item(), 4)
    0.07
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        if start < SMALLEST:
            raise ValueError(f"--temperature {start}: a learnable one starts at {SMALLEST} or above")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(start)))

    def forward(self) -> Tensor:
        """The temperature, a scalar; training puts a weight that has left its range back to the edge.

        Clamping the output alone would leave the weight outside, where its gradient is zero.
        """
        largest = -math.log(SMALLEST)
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=largest)
        return self.log_scale.clamp(max=largest).neg().exp()
