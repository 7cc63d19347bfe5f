"""Encoders of the two modalities: a record encoder for a stay, a vision network for its X-ray."""

from typing import TYPE_CHECKING

from models.encoders.config import EHR_ENCODERS, FIELDS_OF_ENCODER, EncoderConfig
from utils.lazy import lazy_exports

if TYPE_CHECKING:
    from models.encoders.base import Encoder
    from models.encoders.build import build_encoders, is_torchvision, with_shape
    from models.encoders.cxr import CXREncoder, ImageEncoder, crop_of
    from models.encoders.ehr import CausalEncoder, EHREncoder, record_needs
    from models.encoders.external import load_external, start_external
    from models.encoders.hours import HourlyStates
    from models.encoders.lstm import LSTMEncoder, run_lstm
    from models.encoders.vision import VisionEncoder

__all__ = [
    "EHR_ENCODERS", "FIELDS_OF_ENCODER", "CXREncoder", "CausalEncoder", "EHREncoder", "Encoder",
    "EncoderConfig", "HourlyStates", "ImageEncoder", "LSTMEncoder", "VisionEncoder", "build_encoders",
    "crop_of", "is_torchvision", "load_external", "record_needs", "run_lstm",
    "start_external", "with_shape",
]  # fmt: skip

__getattr__ = lazy_exports(
    __name__,
    {
        "Encoder": "base",
        "build_encoders": "build",
        "is_torchvision": "build",
        "with_shape": "build",
        "crop_of": "cxr",
        "CXREncoder": "cxr",
        "CausalEncoder": "ehr",
        "EHREncoder": "ehr",
        "ImageEncoder": "cxr",
        "VisionEncoder": "vision",
        "record_needs": "ehr",
        "load_external": "external",
        "start_external": "external",
        "HourlyStates": "hours",
        "LSTMEncoder": "lstm",
        "run_lstm": "lstm",
    },
)
