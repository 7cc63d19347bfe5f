"""Encoders of the two modalities: an LSTM over the hours of a stay, a torchvision network over its X-ray."""

from typing import TYPE_CHECKING

from models.encoders.config import FIELDS_OF_ENCODER, EncoderConfig
from utils.lazy import lazy_exports

if TYPE_CHECKING:
    from models.encoders.base import Encoder
    from models.encoders.build import build_encoders
    from models.encoders.cxr import CXREncoder
    from models.encoders.ehr import EHREncoder, HourlyStates, run_lstm
    from models.encoders.external import load_external

__all__ = [
    "FIELDS_OF_ENCODER", "CXREncoder", "EHREncoder", "Encoder", "EncoderConfig", "HourlyStates",
    "build_encoders", "load_external", "run_lstm",
]  # fmt: skip

__getattr__ = lazy_exports(
    __name__,
    {
        "Encoder": "base",
        "build_encoders": "build",
        "CXREncoder": "cxr",
        "EHREncoder": "ehr",
        "HourlyStates": "ehr",
        "load_external": "external",
        "run_lstm": "ehr",
    },
)
