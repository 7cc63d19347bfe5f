"""Fusions of one or both modalities into logits; a new one is a file here and a line in FUSIONS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from models.fusion.settings import (
    AUGSettings,
    DrFuseSettings,
    FlexMoESettings,
    FusionSettings,
    HEALNetSettings,
    InfoRegSettings,
    M3CareSettings,
    MedFuseTokensSettings,
    ShaSpecSettings,
    SMILSettings,
    StagedSettings,
    UMSESettings,
    UTDESettings,
)
from utils.choices import look_up, one_of
from utils.lazy import LazyTable, lazy_exports

if TYPE_CHECKING:
    from models.encoders import Encoder
    from models.fusion.base import BranchLogits as BranchLogits
    from models.fusion.base import Fusion as Fusion
    from models.fusion.base import Supervision as Supervision
    from models.fusion.linear import LinearFusion as LinearFusion

__getattr__ = lazy_exports(
    __name__, {"BranchLogits": "base", "Fusion": "base", "LinearFusion": "linear", "Supervision": "base"}
)

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
        "drfuse": "models.fusion.drfuse:DrFuse",
        "shaspec": "models.fusion.shaspec:ShaSpec",
        "m3care": "models.fusion.m3care:M3Care",
        "flexmoe": "models.fusion.flexmoe:FlexMoE",
        "healnet": "models.fusion.healnet:HEALNet",
        "smil": "models.fusion.smil:SMIL",
        "umse": "models.fusion.umse:UMSE",
        "utde": "models.fusion.utde:UTDE",
        "aug": "models.fusion.aug:AUG",
        "inforeg": "models.fusion.inforeg:InfoReg",
    }
)

FusionName = Annotated[str, one_of(FUSIONS)]


def get_fusion(name: str) -> type[Fusion]:
    """Return a fusion's class by its name; if there is none, raise ValueError with the most similar name."""
    return look_up(FUSIONS, name, "fusion")


@dataclass(frozen=True)
class FusionConfig(
    StagedSettings,
    MedFuseTokensSettings,
    DrFuseSettings,
    ShaSpecSettings,
    M3CareSettings,
    FlexMoESettings,
    HEALNetSettings,
    SMILSettings,
    UMSESettings,
    UTDESettings,
    AUGSettings,
    InfoRegSettings,
):
    """Settings that only some fusions have; the checkpoint of a classifier stores them."""


def build_fusion(
    name: str, encoders: Mapping[str, Encoder], outputs: int, kind: str, config: FusionConfig
) -> Fusion:
    """Build a fusion around the encoders of its modalities, with fresh weights, for a task of this kind."""
    fusion = FUSIONS[name]
    constructor: Callable[..., Fusion] = fusion
    more: dict[str, object] = {"kind": kind} if fusion.learns_from_labels else {}
    if fusion.settings is not FusionSettings:
        more["settings"] = config
    return constructor(encoders, outputs, **more)
