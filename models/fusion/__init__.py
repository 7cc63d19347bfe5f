"""Ways to classify from one or both modalities; a new one is a file here and a line in FUSIONS."""

from models.fusion.concatenation import Concatenation
from models.fusion.cxr import CXR
from models.fusion.ehr import EHR
from models.fusion.linear import LinearFusion

FUSIONS: dict[str, type[LinearFusion]] = {"ehr": EHR, "cxr": CXR, "concatenation": Concatenation}

__all__ = ["CXR", "EHR", "FUSIONS", "Concatenation", "LinearFusion"]
