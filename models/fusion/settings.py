"""Settings of the fusions, which are flags: a dataclass each, in a module that needs no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from utils.config import searched

Bounds = Mapping[str, tuple[float, float]]  # smallest and largest value of settings, by their name


@dataclass(frozen=True)
class FusionSettings:
    """Base of the settings of a fusion, whose fields are flags; `bounds` are the ranges of its numbers."""

    bounds: ClassVar[Bounds] = {}

    def __post_init__(self) -> None:
        """Raise ValueError, naming the flag, if a number is out of its range."""
        for kind in type(self).__mro__:
            for name, (low, high) in vars(kind).get("bounds", {}).items():
                value = getattr(self, name)
                if not low <= value <= high:
                    allowed = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
                    raise ValueError(f"--{name} {value:g} is out of range; use {allowed}")


@dataclass(frozen=True)
class StagedSettings(FusionSettings):
    """Settings of the fusions that act between the layers of both encoders."""

    layer_after: Literal[-1, 0, 1, 2, 3, 4] = searched(4)
    """mmtm, daft: stage of the image encoder after which the modalities are fused, 0 (stem) to 4; -1: all."""


@dataclass(frozen=True)
class MedFuseTokensSettings(FusionSettings):
    """Settings of MedFuse with tokens."""

    missing_token: Literal["zero", "learned"] = searched("zero")
    """medfuse_tokens: what the LSTM reads instead of an absent X-ray, zeros or a learned vector."""


WEIGHTS = (
    "drfuse_shared", "drfuse_ehr", "drfuse_cxr", "drfuse_pred_ehr", "drfuse_pred_cxr", "drfuse_pred_shared",
    "drfuse_attention",
)  # fmt: skip


@dataclass(frozen=True)
class DrFuseSettings(FusionSettings):
    """Settings of DrFuse."""

    bounds: ClassVar[Bounds] = {**dict.fromkeys(WEIGHTS, (0, math.inf)), "drfuse_dropout": (0, 1)}

    drfuse_shared: float = searched(1.0, 0.01, 2.0, log=True)
    """drfuse: weight of the divergence of the shared features of both modalities."""
    drfuse_ehr: float = searched(1.0, 0.01, 2.0, log=True)
    """drfuse: weight of the cosine of the EHR's shared and distinct features."""
    drfuse_cxr: float = searched(1.0, 0.01, 2.0, log=True)
    """drfuse: weight of the cosine of the image's shared and distinct features."""
    drfuse_pred_ehr: float = searched(1.0, 0.01, 2.0, log=True)
    """drfuse: weight of the cross-entropy of the EHR's distinct features."""
    drfuse_pred_cxr: float = searched(1.0, 0.01, 2.0, log=True)
    """drfuse: weight of the cross-entropy of the image's distinct features."""
    drfuse_pred_shared: float = searched(1.0, 0.01, 2.0, log=True)
    """drfuse: weight of the cross-entropy of the shared features."""
    drfuse_attention: float = searched(1.0, 0.01, 2.0, log=True)
    """drfuse: weight of the ranking of the attention by the tokens' own cross-entropies."""
    drfuse_dropout: float = searched(0.0, 0.0, 0.5)
    """drfuse: dropout probability of the features."""


@dataclass(frozen=True)
class ShaSpecSettings(FusionSettings):
    """Settings of ShaSpec."""

    bounds: ClassVar[Bounds] = {
        "shaspec_alpha": (0, math.inf), "shaspec_beta": (0, math.inf), "shaspec_dropout": (0, 1),
    }  # fmt: skip

    shaspec_alpha: float = searched(0.1, 0.01, 2.0, log=True)
    """shaspec: weight of the distance between the shared features of both modalities."""
    shaspec_beta: float = searched(0.02, 0.01, 2.0, log=True)
    """shaspec: weight of the cross-entropy of telling the modality from a specific feature."""
    shaspec_dropout: float = searched(0.0, 0.0, 0.5)
    """shaspec: dropout probability."""


@dataclass(frozen=True)
class M3CareSettings(FusionSettings):
    """Settings of M3Care."""

    bounds: ClassVar[Bounds] = {
        "m3care_lambda": (0, math.inf),
        "m3care_bank": (1, math.inf),
        "m3care_dropout": (0, 1),
    }

    m3care_lambda: float = searched(0.1, 1e-3, 1.0, log=True)
    """m3care: weight of the loss that keeps the size of the features on which patients are compared."""
    m3care_bank: int = 256
    """m3care: number of training samples, the latest, whose features are kept; in evaluation, patients
    borrow from them."""
    m3care_dropout: float = searched(0.0, 0.0, 0.5)
    """m3care: dropout probability."""


@dataclass(frozen=True)
class FlexMoESettings(FusionSettings):
    """Settings of Flex-MoE."""

    bounds: ClassVar[Bounds] = {
        "flexmoe_experts": (2, math.inf), "flexmoe_routers": (1, 2), "flexmoe_top_k": (1, math.inf),
        "flexmoe_gate": (0, math.inf), "flexmoe_warmup": (0, math.inf), "flexmoe_dropout": (0, 1),
    }  # fmt: skip

    flexmoe_experts: int = 16
    """flexmoe: number of experts."""
    flexmoe_routers: int = searched(1, 1, 2)
    """flexmoe: 1: one router for all samples; 2: samples without an X-ray have a router of their own."""
    flexmoe_top_k: int = searched(4, 2, 4)
    """flexmoe: experts of a token, fewer than all."""
    flexmoe_gate: float = searched(0.01, 1e-3, 0.1, log=True)
    """flexmoe: weight of the losses that balance the experts, and of the one that leads samples without an
    X-ray to their expert."""
    flexmoe_warmup: int = 5
    """flexmoe: first epochs, in which no sample is led to an expert."""
    flexmoe_dropout: float = searched(0.0, 0.0, 0.5)
    """flexmoe: dropout probability."""

    def __post_init__(self) -> None:
        """Raise ValueError, naming the flag, if a number is out of its range."""
        super().__post_init__()
        if self.flexmoe_top_k >= self.flexmoe_experts:
            raise ValueError(
                f"--flexmoe_top_k {self.flexmoe_top_k} is out of range; use fewer than --flexmoe_experts "
                f"{self.flexmoe_experts}"
            )


@dataclass(frozen=True)
class HEALNetSettings(FusionSettings):
    """Settings of HEALNet."""

    bounds: ClassVar[Bounds] = {
        "healnet_depth": (1, math.inf), "healnet_latents": (1, math.inf), "healnet_bands": (1, math.inf),
        "healnet_max_frequency": (1, math.inf), "healnet_dropout": (0, 1),
    }  # fmt: skip

    healnet_tokens: Literal["features", "patches", "pixels"] = "features"
    """healnet: what the latents read of an X-ray: the last maps of the image encoder, patches of 32 x 32
    pixels, or every pixel as in the paper, 50,176 for 224 x 224."""
    healnet_depth: int = searched(1, 1, 3)
    """healnet: number of layers."""
    healnet_latents: int = 256
    """healnet: number of latents."""
    healnet_bands: int = searched(2, 1, 4)
    """healnet: frequencies that describe a position."""
    healnet_max_frequency: float = searched(10.0, 2.0, 20.0, log=True)
    """healnet: twice the largest of these frequencies."""
    healnet_dropout: float = searched(0.0, 0.0, 0.5)
    """healnet: dropout probability."""


@dataclass(frozen=True)
class SMILSettings(FusionSettings):
    """Settings of SMIL."""

    bounds: ClassVar[Bounds] = {
        "smil_inner_steps": (0, math.inf), "smil_draws": (1, math.inf), "smil_lr": (0, math.inf),
        "smil_alpha": (0, math.inf), "smil_beta": (0, math.inf), "smil_temperature": (1e-6, math.inf),
    }  # fmt: skip

    smil_inner_steps: int = searched(1, 1, 3)
    """smil: inner steps of gradient descent."""
    smil_draws: int = 10
    """smil: draws of the noise, over which losses are averaged."""
    smil_lr: float = searched(1e-3, 1e-4, 1e-2, log=True)
    """smil: learning rate of the inner steps."""
    smil_alpha: float = searched(0.1, 0.01, 2.0, log=True)
    """smil: weight of the difference between hidden features with and without noise."""
    smil_beta: float = searched(0.1, 0.01, 2.0, log=True)
    """smil: weight of the difference between reconstructed and mean image feature."""
    smil_temperature: float = searched(1.0, 1.0, 4.0)
    """smil: temperature at which predictions with and without noise are compared."""


@dataclass(frozen=True)
class UMSESettings(FusionSettings):
    """Settings of UMSE."""

    bounds: ClassVar[Bounds] = {
        "umse_layers": (1, math.inf), "umse_bottlenecks": (1, math.inf), "umse_triplets": (1, math.inf),
        "umse_dropout": (0, 1),
    }  # fmt: skip

    umse_layers: int = searched(2, 1, 3)
    """umse: layers of the transformer; with one, nothing reads what was written to the bottleneck."""
    umse_bottlenecks: int = searched(4, 2, 8)
    """umse: tokens that both modalities read and write."""
    umse_triplets: int = 500
    """umse: most observed values of a sample that are read, the latest."""
    umse_dropout: float = searched(0.0, 0.0, 0.5)
    """umse: dropout probability."""


@dataclass(frozen=True)
class UTDESettings(FusionSettings):
    """Settings of UTDE."""

    bounds: ClassVar[Bounds] = {
        "utde_steps": (1, math.inf), "utde_layers": (1, math.inf), "utde_heads": (1, 64),
        "utde_dropout": (0, 1),
    }  # fmt: skip

    utde_steps: int = 48
    """utde: equal steps of a stay at which its series are read."""
    utde_layers: int = searched(1, 1, 3)
    """utde: layers of self-attention and cross-attention."""
    utde_heads: int = 4
    """utde: heads of the attention over time."""
    utde_dropout: float = searched(0.0, 0.0, 0.5)
    """utde: dropout probability."""


@dataclass(frozen=True)
class AUGSettings(FusionSettings):
    """Settings of AUG."""

    bounds: ClassVar[Bounds] = {
        "aug_alpha": (0, 1), "aug_lambda": (0, math.inf), "aug_delta": (0, math.inf),
        "aug_every": (1, math.inf), "aug_layers": (0, math.inf),
    }  # fmt: skip

    aug_alpha: float = searched(0.5, 0.2, 0.8)
    """aug: weight of the EHR's logits, beside the image's."""
    aug_lambda: float = searched(1.0, 0.8, 1.2)
    """aug: balanced ratio of the EHR's and the image's mean probability of the true label."""
    aug_delta: float = searched(0.02, 0.01, 0.1, log=True)
    """aug: how far from that ratio is balanced too."""
    aug_every: int = searched(10, 5, 15)
    """aug: epochs after which the weaker modality may get a layer, from the first on."""
    aug_layers: int = 4
    """aug: most layers that are added to a modality."""


@dataclass(frozen=True)
class InfoRegSettings(FusionSettings):
    """Settings of InfoReg."""

    bounds: ClassVar[Bounds] = {
        "inforeg_k": (0, math.inf), "inforeg_gamma_ehr": (0, math.inf), "inforeg_gamma_cxr": (0, math.inf),
        "inforeg_steps": (1, math.inf),
    }  # fmt: skip

    inforeg_k: float = searched(0.05, 0.01, 0.1, log=True)
    """inforeg: relative growth of an encoder's Fisher trace above which it is slowed down."""
    inforeg_gamma_ehr: float = searched(1.0, 0.1, 2.0, log=True)
    """inforeg: how much the EHR encoder is slowed down, as a multiple of the gap of the scores."""
    inforeg_gamma_cxr: float = searched(0.3, 0.01, 2.0, log=True)
    """inforeg: the same for the image encoder."""
    inforeg_steps: int = searched(10, 5, 15)
    """inforeg: steps over which the Fisher trace is averaged, and compared with as many before."""
