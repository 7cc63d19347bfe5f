"""ALIGN across modalities: SimCLR's loss with a learned temperature, on pairs of which some are wrong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.objectives.settings import MAX_SWAP, ALIGNSettings
from models.objectives.temperature import TemperatureObjective
from utils.device import to_device
from utils.distributed import broadcast_value


def swap_two_blocks(count: int, swap: float, generator: torch.Generator) -> Tensor:
    """Return an order of `count` rows in which two blocks of equal length are exchanged, int64 [count].

    The length is drawn from 0.8 `swap` to `swap` of the rows and rounded down; the first block begins in the
    first 40 %, the second at 60 to 80 %, as published.

    >>> swap_two_blocks(10, 0.2, torch.Generator().manual_seed(0)).tolist()
    [0, 1, 6, 3, 4, 5, 2, 7, 8, 9]
    """
    length, first, second = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    size = int(count * swap * (0.8 + 0.2 * length))
    first_start = int(count * 0.4 * first)
    second_start = min(int(count * (0.6 + 0.2 * second)), count - size)
    order = torch.arange(count)
    order[first_start : first_start + size] = torch.arange(second_start, second_start + size)
    order[second_start : second_start + size] = torch.arange(first_start, first_start + size)
    return order


class ALIGN(TemperatureObjective):
    """Encoders and heads with models.losses.simclr; in training, blocks of EHR rows are exchanged.

    The main process draws the blocks from PyTorch's generator, which the training loop seeds for each step.
    """

    settings: ALIGNSettings

    def __init__(
        self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], settings: ALIGNSettings
    ) -> None:
        super().__init__(encoders, heads, settings)
        if not 0 <= settings.swap <= MAX_SWAP:
            raise ValueError(
                f"--swap {settings.swap}: two blocks must not overlap; use 0 (no noise) to {MAX_SWAP}"
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss", "temperature"} and PairObjective.metrics of the true pairs."""
        generator = self._noise_generator()  # before dropout draws: the same for any number of processes
        image, ehr = self.pairs(batch)
        noisy = ehr
        if generator is not None:
            noisy = ehr[to_device(swap_two_blocks(len(ehr), self.settings.swap, generator), ehr.device)]
        temperature = self.temperature()
        loss = losses.simclr(image, noisy, temperature, self.settings.denominator)
        return {"loss": loss, "temperature": temperature.detach(), **self.metrics(image, ehr, batch)}

    def _noise_generator(self) -> torch.Generator | None:
        """Return the step's random generator, equal on all processes; None in evaluation or without noise."""
        if not self.training or not self.settings.swap:
            return None
        seed = broadcast_value(float(torch.randint(2**31, ()).item()))
        return torch.Generator().manual_seed(int(seed))
