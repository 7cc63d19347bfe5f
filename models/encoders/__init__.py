"""Encoders of the two modalities: an LSTM over the hours of a stay, a vision network over its X-ray."""

from typing import TYPE_CHECKING

from models.encoders.config import FIELDS_OF_ENCODER, EncoderConfig
from utils.lazy import lazy_exports

if TYPE_CHECKING:
    from models.encoders.base import Encoder
    from models.encoders.build import build_encoders, is_torchvision
    from models.encoders.cxr import CXREncoder, ImageEncoder, crop_of
    from models.encoders.ehr import EHREncoder, HourlyStates, run_lstm
    from models.encoders.external import load_external
    from models.encoders.vision import VisionEncoder

__all__ = [
    "FIELDS_OF_ENCODER", "CXREncoder", "EHREncoder", "Encoder", "EncoderConfig", "HourlyStates",
    "ImageEncoder", "VisionEncoder", "build_encoders", "crop_of", "is_torchvision", "load_external",
    "run_lstm",
]  # fmt: skip

__getattr__ = lazy_exports(
    __name__,
    {
        "Encoder": "base",
        "build_encoders": "build",
        "crop_of": "cxr",
        "is_torchvision": "build",
        "CXREncoder": "cxr",
        "EHREncoder": "ehr",
        "HourlyStates": "ehr",
        "ImageEncoder": "cxr",
        "VisionEncoder": "vision",
        "load_external": "external",
        "run_lstm": "ehr",
    },
)
