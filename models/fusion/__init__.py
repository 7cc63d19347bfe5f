"""Fusions of one or both modalities into logits; a new one is a file here and a line in FUSIONS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from utils.choices import look_up, one_of
from utils.lazy import LazyTable, lazy_exports

if TYPE_CHECKING:
    from models.encoders import Encoder
    from models.fusion.base import BranchLogits as BranchLogits
    from models.fusion.base import Fusion as Fusion
    from models.fusion.linear import LinearFusion as LinearFusion

__getattr__ = lazy_exports(__name__, {"BranchLogits": "base", "Fusion": "base", "LinearFusion": "linear"})

FUSIONS: Mapping[str, type[Fusion]] = LazyTable(
    {
        "ehr": "models.fusion.ehr:EHR",
        "cxr": "models.fusion.cxr:CXR",
        "concatenation": "models.fusion.concatenation:Concatenation",
        "early": "models.fusion.early:Early",
        "joint": "models.fusion.joint:Joint",
        "late": "models.fusion.late:Late",
        "unified": "models.fusion.unified:Unified",
        "medfuse": "models.fusion.medfuse:MedFuse",
        "medfuse_tokens": "models.fusion.medfuse_tokens:MedFuseTokens",
        "mmtm": "models.fusion.mmtm:MMTM",
        "daft": "models.fusion.daft:DAFT",
    }
)

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
