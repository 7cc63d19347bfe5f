"""Pretrain the EHR and X-ray encoders with SimCLR across modalities, or with a relative of it."""

from dataclasses import dataclass
from typing import Literal

from models.objectives.settings import Denominator, ObjectiveSettings
from training.optim import OptimConfig
from training.pretrain import PretrainConfig, published_optim, select_settings
from utils.cli import run_cli
from utils.config import resumable

MAIN = "training.pretraining:pretrain"
PUBLISHED = published_optim("simclr")


@dataclass(frozen=True)
class SimCLRConfig(PretrainConfig):
    """Pretrain both encoders on pairs of a stay's record and its X-ray."""

    objective: Literal["simclr", "tsimclr", "clip", "siglip"] = "simclr"
    """simclr is the published one; tsimclr weights pairs by the days between image and prediction; clip and
    siglip learn their temperature."""
    temperature: float = 0.1
    """Divisor of the cosines, above 0; clip and siglip start from it, at 0.01 or above. Published: 0.1, for
    clip 0.07."""
    denominator: Denominator = "decoupled"
    """Of simclr and tsimclr: decoupled leaves the positive out (published), full keeps it (twice CLIP's
    loss)."""
    k: float = 2.0
    """Of tsimclr: the weight of a pair is k - exp(-k |days|), k 1 or more."""
    width: int = 1
    """The layers of the projection heads have 128 x width units; 0: one linear layer to 512, as in ALIGN."""
    optim: OptimConfig = resumable(PUBLISHED)

    def objective_settings(self) -> ObjectiveSettings:
        """Return the settings of --objective."""
        return select_settings(self.objective, self)


if __name__ == "__main__":
    run_cli(MAIN, SimCLRConfig)
