"""Fusions of one or both modalities into logits; a new one is a file here and a line in FUSIONS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from models.encoders import Encoder
from models.fusion.base import BranchLogits, Fusion
from models.fusion.concatenation import Concatenation
from models.fusion.cxr import CXR
from models.fusion.daft import DAFT
from models.fusion.early import Early
from models.fusion.ehr import EHR
from models.fusion.joint import Joint
from models.fusion.late import Late
from models.fusion.linear import LinearFusion
from models.fusion.medfuse import MedFuse
from models.fusion.medfuse_tokens import MedFuseTokens
from models.fusion.mmtm import MMTM
from models.fusion.unified import Unified
from utils.choices import look_up, one_of

__all__ = [
    "FUSIONS", "BranchLogits", "Fusion", "FusionConfig", "FusionName", "LinearFusion", "build_fusion",
    "get_fusion",
]  # fmt: skip

FUSIONS: dict[str, type[Fusion]] = {
    "ehr": EHR,
    "cxr": CXR,
    "concatenation": Concatenation,
    "early": Early,
    "joint": Joint,
    "late": Late,
    "unified": Unified,
    "medfuse": MedFuse,
    "medfuse_tokens": MedFuseTokens,
    "mmtm": MMTM,
    "daft": DAFT,
}

FusionName = Annotated[str, one_of(FUSIONS)]


def get_fusion(name: str) -> type[Fusion]:
    """Return a fusion's class by its name; if there is none, raise ValueError with the most similar name."""
    return look_up(FUSIONS, name, "fusion")


@dataclass(frozen=True)
class FusionConfig:
    """Settings that only some fusions have; the checkpoint of a classifier stores them."""

    layer_after: Literal[-1, 0, 1, 2, 3, 4] = 4
    """mmtm, daft: stage of the image encoder after which the modalities are fused, 0 (stem) to 4; -1: all."""
    missing_token: Literal["zero", "learned"] = "zero"
    """medfuse_tokens: what the LSTM reads instead of an absent X-ray, zeros or a learned vector."""


def build_fusion(name: str, encoders: Mapping[str, Encoder], outputs: int, config: FusionConfig) -> Fusion:
    """Build a fusion around the encoders of its modalities, with fresh weights."""
    fusion = FUSIONS[name]
    constructor: Callable[..., Fusion] = fusion  # subclasses also take `outputs` and their settings
    return constructor(encoders, outputs, **{key: getattr(config, key) for key in fusion.settings})
