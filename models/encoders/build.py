"""How to build both encoders from their settings."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace

from models.encoders.base import Encoder
from models.encoders.config import EHR_ENCODERS, EncoderConfig

EHR_SHAPE = ("dim", "layers", "dropout")  # arguments of a record encoder, fields ehr_* of EncoderConfig


def build_encoders(
    config: EncoderConfig, modalities: Sequence[str] = ("ehr", "cxr"), download: bool = True
) -> dict[str, Encoder]:
    """Build the encoder of each modality, with fresh weights; `download` as in CXREncoder.

    >>> {name: encoder.feature_dim for name, encoder in build_encoders(EncoderConfig()).items()}
    {'ehr': 128, 'cxr': 512}
    """
    builders: dict[str, Callable[[], Encoder]] = {
        "ehr": lambda: _build_ehr_encoder(config),
        "cxr": lambda: build_image_encoder(config, download),
    }
    return {modality: builders[modality]() for modality in modalities}


def _build_ehr_encoder(config: EncoderConfig) -> Encoder:
    constructor: Callable[..., Encoder] = EHR_ENCODERS[config.ehr_encoder]
    shape = with_shape(config)
    return constructor(**{name: getattr(shape, f"ehr_{name}") for name in EHR_SHAPE})


def with_shape(config: EncoderConfig, lstm_dim: int | None = None) -> EncoderConfig:
    """Return settings in which the published shape of the record encoder stands for each None.

    `lstm_dim` is the LSTM's width, if an objective has its own.

    >>> with_shape(EncoderConfig(ehr_encoder="transformer", ehr_layers=3)).ehr_dim
    64
    """
    published = inspect.signature(EHR_ENCODERS[config.ehr_encoder]).parameters
    shape = {f"ehr_{name}": published[name].default for name in EHR_SHAPE}
    if lstm_dim is not None and config.ehr_encoder == "lstm":
        shape["ehr_dim"] = lstm_dim
    given = {name: getattr(config, name) for name in shape}
    return replace(config, **{name: shape[name] if given[name] is None else given[name] for name in shape})


def build_image_encoder(config: EncoderConfig, download: bool) -> Encoder:
    """Build a ResNet or DenseNet of torchvision, a network of timm, or that of a family."""
    from models.encoders.cxr import CXREncoder  # with torchvision, which --help does not need
    from models.encoders.vision import VisionEncoder

    name = config.vision_backbone
    if is_torchvision(name):
        return CXREncoder(name, config.pretrained, download)
    if config.pretrained:
        raise ValueError(
            f"--pretrained --vision_backbone {name}: torchvision has no weights of it; give a file with "
            "--cxr_weights"
        )
    return VisionEncoder(name)


def is_torchvision(name: str) -> bool:
    """Return whether an image encoder is one of torchvision's, with stages and its own ImageNet weights."""
    from models.encoders.cxr import BACKBONES

    return name in BACKBONES
