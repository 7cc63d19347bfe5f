"""Weights of an image encoder that were trained elsewhere: a state dict with the names of its library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from models.encoders.base import Encoder
from models.encoders.cxr import stages_of, torchvision_names, torchvision_network
from models.encoders.families import FAMILIES
from models.encoders.vision import VisionEncoder
from utils.checkpoint import load_part
from utils.log import logger
from utils.state_dict import read_state_dict

MODULE = "module."  # before all names of a network that DataParallel or DistributedDataParallel trained
CLASSIFIERS = ("fc", "classifier")  # of torchvision's and timm's ResNets and DenseNets


def start_external(encoder: Encoder, backbone: str, path: str) -> None:
    """Start an image encoder from the file of --cxr_weights, and log how many tensors it has.

    Raises:
        ValueError: As of `load_external`; the error says which flag to change.
    """
    try:
        loaded = load_external(encoder, backbone, Path(path))
    except ValueError as error:
        rule = f"{path} does not fit --vision_backbone {backbone}; give the file's backbone"
        raise ValueError(f"{rule}, or another file: {error}") from error
    tensors, *notes = loaded.split(", ", 1)
    logger.info(", ".join([f"loaded {tensors} of {path}", *notes]))
    if backbone in FAMILIES and (note := FAMILIES[backbone].note):
        logger.warning(f"{backbone} {note} when it was trained: its scores may be too good; tables say so")


def load_external(encoder: Encoder, backbone: str, path: Path) -> str:
    """Load the weights of an image encoder, strictly.

    A CXREncoder takes a state dict of torchvision, or of timm where its names are the same; a prefix that all
    names share is removed. A VisionEncoder takes the published file of its family, or a state dict of timm,
    without the prefix MODULE. Parts that give no features, such as a classifier, are left out.

    Returns:
        A message such as "cxr_encoder: 120/120 tensors, 513,000 numbers of other parts left out".

    Raises:
        ValueError: Keys are missing, unexpected or of another shape.
    """
    state = read_state_dict(path)
    if isinstance(encoder, VisionEncoder):
        prefix = MODULE if all(name.startswith(MODULE) for name in state) else ""
        used = encoder.weights(_without_prefix(state, prefix))
        message = load_part(encoder.network, {"parts": {"cxr_encoder": used}}, "cxr_encoder")
    else:
        network = _headless(backbone)
        prefix = _prefix_of(state, next(iter(network.state_dict())))
        named = torchvision_names(_without_prefix(state, prefix))
        used = {name: tensor for name, tensor in named.items() if name.split(".")[0] not in CLASSIFIERS}
        message = _load_stages(encoder, network, used)
    left_out = sum(map(Tensor.numel, state.values())) - sum(map(Tensor.numel, used.values()))
    notes = [f"{left_out:,} numbers of other parts left out"] if left_out > 0 else []
    notes += [f"the prefix {prefix} of all names removed"] if prefix else []
    return ", ".join([message, *notes])


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _prefix_of(state: Mapping[str, Tensor], first: str) -> str:
    """Return what stands before the first tensor of a network in a state dict."""
    return next((name.removesuffix(first) for name in state if name.endswith(first)), "")


def _headless(backbone: str) -> nn.Module:
    """Build a network of torchvision without its classifier."""
    network = torchvision_network(backbone)
    for name in CLASSIFIERS:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


def _load_stages(encoder: Encoder, network: nn.Module, given: Mapping[str, Tensor]) -> str:
    """Load weights by way of their network; counters of batch norm are added where the file has none."""
    expected = network.state_dict()
    counters = {name: t for name, t in expected.items() if name.endswith(".num_batches_tracked")}
    # weights of before 2018 have no counters, and no layer of ours reads them
    message = load_part(network, {"parts": {"cxr_encoder": counters | dict(given)}}, "cxr_encoder")
    loaded = stages_of(network).state_dict()
    encoder.load_state_dict({f"stages.{name}": tensor for name, tensor in loaded.items()})
    return message
