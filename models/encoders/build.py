"""How to build both encoders from their settings."""

from collections.abc import Callable, Sequence

from datasets.schema import channel_count
from models.encoders.base import Encoder
from models.encoders.config import EncoderConfig
from models.encoders.ehr import EHREncoder


def build_encoders(
    config: EncoderConfig, modalities: Sequence[str] = ("ehr", "cxr"), download: bool = True
) -> dict[str, Encoder]:
    """Build the encoder of each modality, with fresh weights; `download` as in CXREncoder.

    >>> {name: encoder.feature_dim for name, encoder in build_encoders(EncoderConfig()).items()}
    {'ehr': 128, 'cxr': 512}
    """
    builders: dict[str, Callable[[], Encoder]] = {
        "ehr": lambda: EHREncoder(channel_count(), config.ehr_dim, config.ehr_layers, config.ehr_dropout),
        "cxr": lambda: build_image_encoder(config, download),
    }
    return {modality: builders[modality]() for modality in modalities}


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
