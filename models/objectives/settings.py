"""The settings of all objectives, without PyTorch, so that --help need not wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from utils.lazy import resolve

if TYPE_CHECKING:
    from torch import nn

    from models.objectives.base import PairObjective

Denominator = Literal["decoupled", "full"]
MAX_SWAP = 0.2  # the first block may end at 40 % + 20 %, where the second may begin


@dataclass(frozen=True)
class PublishedOptim:
    """Published settings of an optimizer, named as in training.optim.OptimConfig."""

    optimizer: str
    lr: float
    warmup_epochs: float
    weight_decay: float = 1e-4
    epochs: int = 300
    schedule: str = "cosine"


@dataclass(frozen=True)
class ObjectiveSettings:
    """Settings of an objective. Each field is a flag, and the docstring below it is the flag's help.

    The class variables are the objective's name in flags and checkpoints, its title in text, its module (or
    where to import that from, as "module:class"), and the default settings of the optimizer and of the EHR
    encoder.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    module: ClassVar[type | str]
    published_optim: ClassVar[PublishedOptim]
    published_ehr_dim: ClassVar[int] = 128

    width: int = 1
    """The layers of the projection heads have 128 x width units; 0: one linear layer to 512, as in ALIGN."""

    def build(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> PairObjective:
        """Build the objective around encoders and heads, by modality."""
        module = resolve(self.module) if isinstance(self.module, str) else self.module
        return cast("type[PairObjective]", module)(encoders, heads, self)

    def check(self, optimizer: str) -> None:
        """Raise ValueError if the objective cannot be trained with this optimizer."""


@dataclass(frozen=True)
class TemperatureSettings(ObjectiveSettings):
    """Settings of an objective with a learnable temperature."""

    published_optim = PublishedOptim("adamw", lr=1e-4, warmup_epochs=10)

    temperature: float = 0.07
    """Start of the learned divisor of the cosines, 0.01 or above."""

    def check(self, optimizer: str) -> None:
        """Raise ValueError for lars, whose learning rates are too large for the temperature."""
        if optimizer == "lars":
            raise ValueError(
                f"{self.title} learns its temperature, for which the learning rates of lars are too large; "
                "add --optimizer adamw --lr 1e-4"
            )


@dataclass(frozen=True)
class SimCLRSettings(ObjectiveSettings):
    """Settings of SimCLR."""

    name = "simclr"
    title = "SimCLR"
    module = "models.objectives.simclr:SimCLR"
    published_optim = PublishedOptim("lars", lr=0.6044, warmup_epochs=10)

    temperature: float = 0.1
    """Divisor of the cosines, above 0."""
    denominator: Denominator = "decoupled"
    """decoupled leaves the positive out of the denominator (published); full keeps it, which is twice CLIP's
    loss. Neither has the negatives of NT-Xent within a modality."""


@dataclass(frozen=True)
class TSimCLRSettings(SimCLRSettings):
    """Settings of T-SimCLR."""

    name = "tsimclr"
    title = "T-SimCLR"
    module = "models.objectives.tsimclr:TSimCLR"

    k: float = 2.0
    """The weight of a pair is k - exp(-k |days|), k 1 or more."""


@dataclass(frozen=True)
class CLIPSettings(TemperatureSettings):
    """Settings of CLIP."""

    name = "clip"
    title = "CLIP"
    module = "models.objectives.clip:CLIP"


@dataclass(frozen=True)
class SigLIPSettings(TemperatureSettings):
    """Settings of SigLIP."""

    name = "siglip"
    title = "SigLIP"
    module = "models.objectives.siglip:SigLIP"

    temperature: float = 0.1
    """Start of the learned divisor of the cosines, 0.01 or above."""


@dataclass(frozen=True)
class VICRegSettings(ObjectiveSettings):
    """Settings of VICReg."""

    name = "vicreg"
    title = "VICReg"
    module = "models.objectives.vicreg:VICReg"
    published_optim = PublishedOptim("lars", lr=0.5989, warmup_epochs=10)

    invariance: float = 25.0
    """Weight of the distance between partners."""
    variance: float = 25.0
    """Weight of the features' lack of variance over a batch."""
    covariance: float = 1.0
    """Weight of the covariance between features."""


@dataclass(frozen=True)
class ALIGNSettings(TemperatureSettings):
    """Settings of ALIGN."""

    name = "align"
    title = "ALIGN"
    module = "models.objectives.align:ALIGN"
    published_optim = PublishedOptim("adamw", lr=6.026e-5, warmup_epochs=0)
    published_ehr_dim = 256

    width: int = 0
    """0: the heads are one linear layer to 512 (published); else they have layers of 128 x width units."""
    denominator: Denominator = "decoupled"
    """decoupled leaves the positive out of the denominator (published); full keeps it, which is twice CLIP's
    loss. Neither has the negatives of NT-Xent within a modality."""
    swap: float = MAX_SWAP
    """Noise: in training, two blocks of 0.8 to 1 times this fraction of a batch exchange their EHR rows; 0
    swaps none, 0.2 is the published value and the largest."""

    def check(self, optimizer: str) -> None:
        """Accept every optimizer."""
