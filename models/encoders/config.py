"""The settings of both encoders."""

from dataclasses import dataclass
from typing import ClassVar


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
    """Image encoder: a ResNet or DenseNet of torchvision, any network of timm, or one that was trained on
    X-rays elsewhere and has its own preprocessing: rad-dino, xrv-densenet121, xrv-resnet50-512, biovil-t,
    chexzero, eva-x-tiny, eva-x-small, eva-x-base. timm/NAME: timm's, if torchvision has the name too."""
    pretrained: bool = False
    """Start from ImageNet weights, which torchvision downloads, and normalise images as ImageNet was."""


FIELDS_OF_ENCODER = {  # the fields of EncoderConfig that shape each encoder
    "ehr": ("ehr_dim", "ehr_layers", "ehr_dropout"),
    "cxr": ("vision_backbone", "pretrained"),
}
