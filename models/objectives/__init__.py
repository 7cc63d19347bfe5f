"""Objectives of the pretraining; a new one is a file here and a line in OBJECTIVES."""

from collections.abc import Mapping

from models.objectives.settings import ObjectiveSettings
from utils.lazy import LazyTable

__all__ = ["OBJECTIVES", "ObjectiveSettings"]

OBJECTIVES: Mapping[str, type[ObjectiveSettings]] = LazyTable(
    {
        "simclr": "models.objectives.settings:SimCLRSettings",
        "tsimclr": "models.objectives.settings:TSimCLRSettings",
        "clip": "models.objectives.settings:CLIPSettings",
        "siglip": "models.objectives.settings:SigLIPSettings",
        "vicreg": "models.objectives.settings:VICRegSettings",
        "align": "models.objectives.settings:ALIGNSettings",
    }
)
