"""The settings of both encoders, and the record encoders by name; a new one is a file here and a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from utils.choices import one_of, require_choice
from utils.config import searched
from utils.lazy import LazyTable

if TYPE_CHECKING:
    from models.encoders.ehr import EHREncoder

EHR_ENCODERS: Mapping[str, type[EHREncoder]] = LazyTable(
    {
        "lstm": "models.encoders.lstm:LSTMEncoder",
        "gru_d": "models.encoders.gru_d:GRUDEncoder",
        "tcn": "models.encoders.tcn:TCNEncoder",
        "transformer": "models.encoders.transformer:TransformerEncoder",
        "strats": "models.encoders.strats:STraTSEncoder",
        "duett": "models.encoders.duett:DuETTEncoder",
    }
)

EHREncoderName = Annotated[str, one_of(EHR_ENCODERS)]


@dataclass(frozen=True)
class EncoderConfig:
    """Architecture of the two encoders. Checkpoints store it, so that later programs need not ask again."""

    synonyms: ClassVar = {
        "ehr_model": "ehr_encoder",
        "record_encoder": "ehr_encoder",
        "hidden_size": "ehr_dim",
        "hidden_dim": "ehr_dim",
        "num_layers": "ehr_layers",
        "dropout": "ehr_dropout",
        "backbone": "vision_backbone",
        "arch": "vision_backbone",
        "imagenet": "pretrained",
    }

    ehr_encoder: EHREncoderName = "lstm"
    """Network that reads the records; docs/encoders.md compares them."""
    ehr_dim: int | None = None
    """Width of the record encoder's layers, of the LSTM also of its feature; None is the published width of
    each encoder, 128 for the LSTM (256 in ALIGN)."""
    ehr_layers: int | None = None
    """Layers of the record encoder; None is the published number of each, 1 for the LSTM."""
    ehr_dropout: float | None = searched(None, 0.0, 0.5)
    """Dropout probability of the record encoder, 0 to 1, of the LSTM between its layers and on its feature;
    None is the published one of each, 0 for the LSTM."""
    vision_backbone: str = "resnet34"
    """Image encoder: a ResNet or DenseNet of torchvision, any network of timm, or one that was trained on
    X-rays elsewhere and has its own preprocessing: rad-dino, xrv-densenet121, xrv-resnet50-512, biovil-t,
    chexzero, eva-x-tiny, eva-x-small, eva-x-base. timm/NAME: timm's, if torchvision has the name too."""
    pretrained: bool = False
    """Start from ImageNet weights, which torchvision downloads, and normalise images as ImageNet was."""

    def __post_init__(self) -> None:
        require_choice(EHR_ENCODERS, self.ehr_encoder, "ehr_encoder")
        for name, smallest in (("ehr_dim", 1), ("ehr_layers", 1)):
            if (value := getattr(self, name)) is not None and value < smallest:
                raise ValueError(f"--{name} must be {smallest} or more, not {value}")
        if self.ehr_dropout is not None and not 0 <= self.ehr_dropout <= 1:
            raise ValueError(f"--ehr_dropout must be 0 to 1, not {self.ehr_dropout}")


FIELDS_OF_ENCODER = {  # the fields of EncoderConfig that shape each encoder
    "ehr": ("ehr_encoder", "ehr_dim", "ehr_layers", "ehr_dropout"),
    "cxr": ("vision_backbone", "pretrained"),
}
