"""Weights of an image encoder that were trained elsewhere: a state dict with the names of its library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torchvision import models as torchvision_models

from models.encoders.base import Encoder
from models.encoders.cxr import stages_of
from models.encoders.families import FAMILIES
from models.encoders.vision import VisionEncoder
from utils.checkpoint import load_part
from utils.log import logger
from utils.state_dict import read_state_dict

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
    logger.info(f"loaded {loaded} of {path}")
    if backbone in FAMILIES and (note := FAMILIES[backbone].note):
        logger.warning(f"{backbone} {note} when it was trained: its scores may be too good; tables say so")


def load_external(encoder: Encoder, backbone: str, path: Path) -> str:
    """Load the weights of an image encoder, strictly.

    A CXREncoder takes a state dict of torchvision, or of timm where its names are the same; a prefix that all
    names share, such as `module.`, is removed. A VisionEncoder takes the published file of its family, or a
    state dict of timm. Parts that give no features, such as a classifier, are left out.

    Returns:
        A message such as "cxr_encoder: 216/216 tensors (2 others left out)".

    Raises:
        ValueError: Keys are missing, unexpected or of another shape.
    """
    state = read_state_dict(path)
    if isinstance(encoder, VisionEncoder):
        weights = encoder.weights(state)
        message = load_part(encoder.network, {"parts": {"cxr_encoder": weights}}, "cxr_encoder")
        used = sum(tensor.numel() for tensor in weights.values())
        others = sum(tensor.numel() for tensor in state.values()) - used
        return f"{message}, {others:,} numbers of other parts left out"
    return _load_stages(encoder, backbone, state)


def _load_stages(encoder: Encoder, backbone: str, state: Mapping[str, Tensor]) -> str:
    network = torchvision_models.get_model(backbone, weights=None)
    for name in CLASSIFIERS:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    expected = network.state_dict()
    given = _with_names_of(state, expected)
    message = load_part(network, {"parts": {"cxr_encoder": given}}, "cxr_encoder")
    loaded = stages_of(network).state_dict()
    encoder.load_state_dict({f"stages.{name}": tensor for name, tensor in loaded.items()})
    return message


def _with_names_of(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove a common prefix and the classifier, and add counters of batch norm where the file has none."""
    first = next(iter(expected))
    prefix = next((name.removesuffix(first) for name in given if name.endswith(first)), "")
    named = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
    kept = {name: tensor for name, tensor in named.items() if name.split(".")[0] not in CLASSIFIERS}
    counters = {name: t for name, t in expected.items() if name.endswith(".num_batches_tracked")}
    return counters | kept  # weights of before 2018 have no counters, and no layer of ours reads them
