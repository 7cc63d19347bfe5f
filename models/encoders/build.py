"""The settings of both encoders, and how to build the encoders from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from datasets.schema import channel_count
from models.encoders.base import Encoder
from models.encoders.cxr import CXREncoder
from models.encoders.ehr import EHREncoder


@dataclass(frozen=True)
class EncoderConfig:
    """Architecture of the two encoders. Checkpoints store it, so that later programs need not ask again."""

    synonyms: ClassVar = {
        "hidden_size": "ehr_dim",
        "hidden_dim": "ehr_dim",
        "num_layers": "ehr_layers",
        "dropout": "ehr_dropout",
        "backbone": "vision_backbone",
        "arch": "vision_backbone",
        "imagenet": "pretrained",
    }

    ehr_dim: int = 128
    """Hidden units of each layer of the LSTM, and width of its feature."""
    ehr_layers: int = 1
    """Layers of the LSTM."""
    ehr_dropout: float = 0.0
    """Dropout probability between the layers of the LSTM and on its feature, 0 to 1."""
    vision_backbone: str = "resnet34"
    """Name of any torchvision ResNet or DenseNet."""
    pretrained: bool = False
    """Start from ImageNet weights, which torchvision downloads, and normalise images as ImageNet was."""


FIELDS_OF_ENCODER = {  # the fields of EncoderConfig that shape each encoder
    "ehr": ("ehr_dim", "ehr_layers", "ehr_dropout"),
    "cxr": ("vision_backbone", "pretrained"),
}


def build_encoders(
    config: EncoderConfig, modalities: Sequence[str] = ("ehr", "cxr"), download: bool = True
) -> dict[str, Encoder]:
    """Build the encoder of each modality, with fresh weights; `download` as in CXREncoder.

    >>> {name: encoder.feature_dim for name, encoder in build_encoders(EncoderConfig()).items()}
    {'ehr': 128, 'cxr': 512}
    """
    builders: dict[str, Callable[[], Encoder]] = {
        "ehr": lambda: EHREncoder(channel_count(), config.ehr_dim, config.ehr_layers, config.ehr_dropout),
        "cxr": lambda: CXREncoder(config.vision_backbone, config.pretrained, download),
    }
    return {modality: builders[modality]() for modality in modalities}
