"""ALIGN across modalities: SimCLR's loss with a learnt temperature, on pairs of which some are wrong."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.pairs import PairObjective
from models.objectives.temperature import LearnableTemperature
from utils.distributed import broadcast_value

LARGEST_SWAP = 0.2  # the first block may end at 40 % + 20 %, where the second may begin


def swapped(count: int, swap: float, draw: torch.Generator) -> Tensor:
    """An order of `count` rows in which two blocks of them have changed places: [count] int64.

    The blocks have one length, drawn from 0.8 `swap` to `swap` of the rows and rounded down; the first begins
    in the first 40 %, the second at 60 to 80 %, as published.

    >>> swapped(10, 0.2, torch.Generator().manual_seed(0)).tolist()
    [0, 1, 6, 3, 4, 5, 2, 7, 8, 9]
    """
    length, first, second = torch.rand(3, generator=draw, dtype=torch.float64).tolist()
    size = int(count * swap * (0.8 + 0.2 * length))
    begin = int(count * 0.4 * first)
    other = min(int(count * (0.6 + 0.2 * second)), count - size)
    order = torch.arange(count)
    order[begin : begin + size] = torch.arange(other, other + size)
    order[other : other + size] = torch.arange(begin, begin + size)
    return order


class ALIGN(PairObjective):
    """Encoders and heads under models.losses.simclr; in training, blocks of EHR rows are swapped.

    `swap` is the largest share of a batch in each of the two blocks, 0 for no noise (see `swapped`). What is
    swapped is drawn on the main process from PyTorch's generator, which the loop seeds for each step.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        temperature: float = 0.07,
        denominator: losses.Denominator = "decoupled",
        swap: float = LARGEST_SWAP,
    ) -> None:
        super().__init__(encoders, heads)
        if not 0 <= swap <= LARGEST_SWAP:
            raise ValueError(f"--swap {swap}: two blocks must not meet; use 0 (no noise) to {LARGEST_SWAP}")
        self.temperature = LearnableTemperature(temperature)
        self.denominator = denominator
        self.swap = swap

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Batch -> {"loss", "temperature"} and what PairObjective.measures of the true pairs."""
        draw = self._draw()  # before dropout draws: the choice is the same for any number of processes
        image, ehr = self.pairs(batch)
        noisy = ehr if draw is None else ehr[swapped(len(ehr), self.swap, draw).to(ehr.device)]
        temperature = self.temperature()
        loss = losses.simclr(image, noisy, temperature, self.denominator)
        return {"loss": loss, "temperature": temperature.detach(), **self.measures(image, ehr, batch)}

    def _draw(self) -> torch.Generator | None:
        """The step's source of noise, the same on every process; None in evaluation and without noise."""
        if not self.training or not self.swap:
            return None
        seed = broadcast_value(float(torch.randint(2**31, ()).item()))
        return torch.Generator().manual_seed(int(seed))
