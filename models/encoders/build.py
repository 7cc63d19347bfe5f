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
    from models.encoders.cxr import CXREncoder  # with torchvision, which --help does not need

    builders: dict[str, Callable[[], Encoder]] = {
        "ehr": lambda: EHREncoder(channel_count(), config.ehr_dim, config.ehr_layers, config.ehr_dropout),
        "cxr": lambda: CXREncoder(config.vision_backbone, config.pretrained, download),
    }
    return {modality: builders[modality]() for modality in modalities}
