"""Ways to classify from one or both modalities; a new one is a file here and a line in FUSIONS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

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

__all__ = ["FUSIONS", "BranchLogits", "Fusion", "FusionConfig", "LinearFusion", "build_fusion"]

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


@dataclass(frozen=True)
class FusionConfig:
    """Settings of single fusions; a classifier's checkpoint carries them."""

    layer_after: Literal[-1, 0, 1, 2, 3, 4] = 4
    """mmtm, daft: stage of the image encoder after which the modalities meet, 0 (stem) to 4; -1: all."""
    missing_token: Literal["zero", "learned"] = "zero"
    """medfuse_tokens: what the LSTM reads in place of an absent X-ray, zeros or a learnt vector."""


def build_fusion(name: str, encoders: Mapping[str, Encoder], outputs: int, config: FusionConfig) -> Fusion:
    """A fusion with fresh weights of its own, around the encoders of its modalities."""
    fusion = FUSIONS[name]
    build: Callable[..., Fusion] = fusion  # which takes outputs and settings too
    return build(encoders, outputs, **{setting: getattr(config, setting) for setting in fusion.settings})
