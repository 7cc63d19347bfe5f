"""Encoders of the two modalities: an LSTM over the hours of a stay, a torchvision network over its X-ray."""

from models.encoders.base import Encoder
from models.encoders.build import FIELDS_OF_ENCODER, EncoderConfig, build_encoders
from models.encoders.cxr import CXREncoder
from models.encoders.ehr import EHREncoder, HourlyStates, run_lstm

__all__ = [
    "FIELDS_OF_ENCODER", "CXREncoder", "EHREncoder", "Encoder", "EncoderConfig", "HourlyStates",
    "build_encoders", "run_lstm",
]  # fmt: skip
