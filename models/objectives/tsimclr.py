"""T-SimCLR (MedCLR): SimCLR whose pairs are weighted by the time between image and prediction."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.losses import Denominator
from models.objectives.simclr import SimCLR, SimCLRSettings
from utils.distributed import gather_with_gradient


class TSimCLR(SimCLR):
    """SimCLR whose pairs are weighted by models.losses.gap_weight."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        temperature: float,
        denominator: Denominator,
        k: float,
    ) -> None:
        super().__init__(encoders, heads, temperature, denominator)
        self.k = k

    def pair_weights(self, batch: Batch) -> Tensor:
        """Return the weights [N] of all processes' pairs."""
        return losses.gap_weight(gather_with_gradient(batch.gap_days[batch.has_cxr]), self.k)


@dataclass(frozen=True)
class TSimCLRSettings(SimCLRSettings):
    """Settings of T-SimCLR."""

    name = "tsimclr"
    title = "T-SimCLR"

    k: float = 2.0
    """The weight of a pair is k - exp(-k |days|), k 1 or more."""

    def build(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> TSimCLR:
        """Build the objective around encoders and heads, by modality."""
        return TSimCLR(encoders, heads, self.temperature, self.denominator, self.k)
