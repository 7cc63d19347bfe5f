"""Image encoders of timm, and of families that were trained elsewhere: with their own preprocessing.

An encoder of another family is a file with its Network, and a line in FAMILIES (docs/extending.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.encoders.cxr import BACKBONES, ImageEncoder, torchvision_network
from models.encoders.families import FAMILIES, PUBLISHED_CROP, TIMM, Family
from utils.config import did_you_mean
from utils.lazy import resolve

State = Mapping[str, Tensor]


class Network(NamedTuple):
    """How to build a network that maps normalised images [P, C, S, S] to features [P, dim].

    weights: renames the tensors of its published file as they are called here, and leaves out those of parts
    that give no features.
    """

    build: Callable[[], nn.Module]
    weights: Callable[[State], dict[str, Tensor]]
    dim: int


class BioViLT(nn.Module):
    """The image part of BioViL-T without a prior image: its mean projected map, and a learnt vector."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torchvision_network("resnet50")
        self.encoder.fc = nn.Identity()
        self.backbone_to_vit = nn.Conv2d(2048, 256, 1, bias=False)
        self.missing_previous_emb = nn.Parameter(torch.zeros(1, 256, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [P, 3, S, S] to features [P, 512]."""
        maps = images
        for name, child in self.encoder.named_children():
            maps = maps if name in ("avgpool", "fc") else child(maps)
        image = self.backbone_to_vit(maps).mean((2, 3))
        return torch.cat([image, self.missing_previous_emb.flatten(1).expand(len(image), -1)], dim=1)


def _rad_dino() -> nn.Module:
    return _timm("vit_base_patch14_dinov2", img_size=518)


def _xrv_densenet() -> nn.Module:
    network = torchvision_network("densenet121")
    network.classifier = nn.Identity()
    network.get_submodule("features").conv0 = _grey_stem()
    return network


def _xrv_resnet() -> nn.Module:
    network = torchvision_network("resnet50")
    network.fc = nn.Identity()
    network.conv1 = _grey_stem()
    return network


def _grey_stem() -> nn.Module:
    return nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)


def _chexzero() -> nn.Module:
    network = _timm("vit_base_patch32_clip_quickgelu_224", num_classes=512)
    network.head = nn.Linear(768, 512, bias=False)
    return network


def _eva_x(width: int, heads: int, is_base: bool = False) -> nn.Module:
    from timm.models.eva import Eva

    network: nn.Module = Eva(
        img_size=224, patch_size=16, embed_dim=width, depth=12, num_heads=heads, mlp_ratio=4 * 2 / 3,
        qkv_fused=not is_base, scale_mlp=is_base, swiglu_mlp=True, use_rot_pos_emb=True,
        ref_feat_shape=(14, 14), num_classes=0,
    )  # fmt: skip
    return network


def _timm(name: str, num_classes: int = 0, **options: Any) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **options)
    return network


DINO_NAMES = {
    "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj", "encoder.layer.": "blocks.",
    "attention.output.dense": "attn.proj", "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma", "layernorm.": "norm.",
}  # fmt: skip
CLIP_NAMES = {
    "conv1": "patch_embed.proj", "class_embedding": "cls_token", "positional_embedding": "pos_embed",
    "transformer.resblocks.": "blocks.", "ln_pre": "norm_pre", "ln_post": "norm", "ln_": "norm",
    "attn.in_proj_": "attn.qkv.", "attn.out_proj": "attn.proj", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
EVA_NAMES = {
    "mlp.ffn_ln": "mlp.norm", "attn.inner_attn_ln": "attn.norm", "mlp.w12": "mlp.fc1", "mlp.w1": "mlp.fc1_g",
    "mlp.w2": "mlp.fc1_x", "mlp.w3": "mlp.fc2",
}  # fmt: skip
EVA_BASE_NAMES = EVA_NAMES | {"q_bias": "q_proj.bias", "v_bias": "v_proj.bias"}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def _below(state: State, prefix: str, *left_out: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix by the rest of their names, but those that begin with `left_out`."""
    rest = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in rest.items() if not name.startswith(left_out or "\0")}


def _of_dino(state: State) -> dict[str, Tensor]:
    """Return RAD-DINO's tensors, of model.safetensors (transformers) or backbone_compatible.safetensors."""
    if "embeddings.cls_token" not in state:
        return _below(state, "", "mask_token")
    named = {_renamed(n, DINO_NAMES): t for n, t in _below(state, "", "embeddings.mask_token").items()}
    joined = {}
    for name in sorted(name for name in named if ".attention.attention.query." in name):
        parts = [named.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        joined[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    return named | joined


def _of_clip(state: State) -> dict[str, Tensor]:
    """Return the tensors of the image tower of an OpenAI CLIP."""
    named = {_renamed(name, CLIP_NAMES): tensor for name, tensor in _below(state, "visual.").items()}
    if "proj" in named:
        named["head.weight"] = named.pop("proj").T.contiguous()
    shapes = {"cls_token": (1, 1, -1), "pos_embed": (1, -1, 768)}
    return {name: t.reshape(shapes[name]) if name in shapes else t for name, t in named.items()}


def _of_eva(state: State) -> dict[str, Tensor]:
    """Return EVA-X's tensors without those of its masked-image pretraining."""
    state = _below(state, "", "mask_token", "lm_head", "rope")
    names = EVA_BASE_NAMES if "blocks.0.attn.q_proj.weight" in state else EVA_NAMES
    named = {re.sub(r"^norm\.", "fc_norm.", _renamed(name, names)): t for name, t in state.items()}
    return {name: t for name, t in named.items() if ".rope" not in name}


def _of_xrv(state: State) -> dict[str, Tensor]:
    return _below(state, "model." if "model.conv1.weight" in state else "", "classifier", "fc", "op_threshs")


def _of_biovil_t(state: State) -> dict[str, Tensor]:
    return _below(state, "encoder.", "vit_pooler", "encoder.fc")


NETWORKS = {
    "rad-dino": Network(_rad_dino, _of_dino, 768),
    "xrv-densenet121": Network(_xrv_densenet, _of_xrv, 1024),
    "xrv-resnet50-512": Network(_xrv_resnet, _of_xrv, 2048),
    "biovil-t": Network(BioViLT, _of_biovil_t, 512),
    "chexzero": Network(_chexzero, _of_clip, 512),
    "eva-x-tiny": Network(lambda: _eva_x(192, 3), _of_eva, 192),
    "eva-x-small": Network(lambda: _eva_x(384, 6), _of_eva, 384),
    "eva-x-base": Network(lambda: _eva_x(768, 12, is_base=True), _of_eva, 768),
}


def network_of(family: str) -> Network:
    """Return the network of a family: the one that its line in FAMILIES names, or that of NETWORKS."""
    target = FAMILIES[family].network
    network = resolve(target) if target else NETWORKS[family]
    assert isinstance(network, Network)
    return network


class VisionEncoder(ImageEncoder):
    """An encoder of a family, or any network of timm, with the preprocessing that its weights expect.

    `preprocessing` (size, crop, then mean and deviation of each channel) is a part of the encoder's state, so
    that a checkpoint has it. `size` is the side of its images in pixels.
    """

    preprocessing: Tensor
    size: int

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        check_backbone(name)
        family = FAMILIES.get(name)
        self.network = network_of(name).build() if family else _timm(name.removeprefix(TIMM))
        numbers = _of_family(family) if family else _of_timm(self.network)
        self.register_buffer("preprocessing", torch.tensor(numbers))
        self._note_preprocessing(self)
        self.register_load_state_dict_post_hook(self._note_preprocessing)  # type: ignore[no-untyped-call]
        self.has_fixed_size = bool(family) or _config(self.network).get("fixed_input_size", False)
        self.feature_dim = network_of(name).dim if family else _width_of(self.network)

    @staticmethod
    def _note_preprocessing(encoder: nn.Module, *_: object) -> None:
        """Set size and crop to what the state says."""
        assert isinstance(encoder, VisionEncoder)
        size, encoder.crop = encoder.preprocessing[:2].tolist()
        encoder.size = round(size)

    @property
    def stages(self) -> nn.Sequential:
        """Stages that fusions act between.

        Raises:
            ValueError: Always; the encoders of torchvision alone have some.
        """
        raise ValueError(
            f"--vision_backbone {self.name} has no stages, between which this fusion acts; use a ResNet or "
            "DenseNet of torchvision, or another --fusion"
        )

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels of the stages, which it does not have."""
        return tuple(range(len(self.stages)))

    def prepare(self, cxr: Tensor) -> Tensor:
        """Normalise grey images [P, 1, S, S] in [0, 1] as its weights expect: [P, 1 or 3, S, S]."""
        if self.has_fixed_size and cxr.shape[-1] != self.size:
            raise ValueError(
                f"--image_size {cxr.shape[-1]}: --vision_backbone {self.name} reads images of {self.size} "
                f"pixels; use --image_size {self.size}"
            )
        mean, std = self.preprocessing[2:].to(cxr.dtype).view(2, -1, 1, 1)
        normalised: Tensor = (cxr - mean) / std
        return normalised

    def forward(self, cxr: Tensor) -> Tensor:
        """Map images [P, 1, S, S] to features [P, feature_dim], float32 or better; P may be 0."""
        with self.safe_batch_norm(len(cxr)):
            features: Tensor = self.network(self.prepare(cxr))
        float32: Tensor = features.to(torch.promote_types(features.dtype, torch.float32))
        return float32

    def maps(self, cxr: Tensor) -> Tensor:
        """Map images [P, 1, S, S] to the maps [P, feature_dim, h, w] before the pooling; P may be 0."""
        forward = getattr(self.network, "forward_features", None)
        maps: Tensor | None = None
        if forward is not None:
            with self.safe_batch_norm(len(cxr)):
                maps = forward(self.prepare(cxr))
        if maps is not None and maps.ndim == 3:
            positions = maps[:, getattr(self.network, "num_prefix_tokens", 0) :].transpose(1, 2)
            maps = positions.unflatten(2, (math.isqrt(positions.shape[2]), -1))
        if maps is None or maps.ndim != 4 or maps.shape[1] != self.feature_dim:
            raise ValueError(
                f"--vision_backbone {self.name} has no maps of its features, which this fusion reads; use a "
                "ResNet or DenseNet of torchvision, or another --fusion"
            )
        return maps

    def weights(self, state: State) -> dict[str, Tensor]:
        """Return the tensors of a published file by their names in `network`, but those of other parts."""
        if self.name in FAMILIES:
            return network_of(self.name).weights(state)
        heads = _config(self.network).get("classifier") or ()
        return _below(state, "", "mask_token", *((heads,) if isinstance(heads, str) else heads))


def check_backbone(name: str) -> None:
    """Raise ValueError if neither torchvision nor timm has an image encoder, and it is no family."""
    if name in BACKBONES or name in FAMILIES:
        return
    import timm

    known = timm.list_models()
    if name.removeprefix(TIMM).partition(".")[0] not in known:
        names = [*BACKBONES, *FAMILIES, *known]
        raise ValueError(
            f"--vision_backbone {name}: no ResNet or DenseNet of torchvision, no network of timm, and no "
            f"family{did_you_mean(name, names)}; families: {', '.join(FAMILIES)}"
        )


def _config(network: nn.Module) -> dict[str, Any]:
    config: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    return config


def _width_of(network: nn.Module) -> int:
    """Return the width of a network's features before its classifier."""
    dim: int = getattr(network, "head_hidden_size", None) or network.num_features  # type: ignore[assignment]
    return dim


def _of_family(family: Family) -> list[float]:
    return [family.size, family.crop, *[family.mean] * family.channels, *[family.std] * family.channels]


def _of_timm(network: nn.Module) -> list[float]:
    """Return size, crop, means and deviations that timm notes of a network's weights."""
    config = _config(network)
    size, crop = config["input_size"][-1], config.get("crop_pct") or PUBLISHED_CROP
    return [size, crop, *config["mean"], *config["std"]]
