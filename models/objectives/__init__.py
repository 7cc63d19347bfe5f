"""Objectives of the pretraining; a new one is a file here and a line in OBJECTIVES."""

from models.objectives.align import ALIGNSettings
from models.objectives.base import ObjectiveSettings
from models.objectives.clip import CLIPSettings
from models.objectives.siglip import SigLIPSettings
from models.objectives.simclr import SimCLRSettings
from models.objectives.tsimclr import TSimCLRSettings
from models.objectives.vicreg import VICRegSettings

__all__ = ["OBJECTIVES", "ObjectiveSettings"]

OBJECTIVES: dict[str, type[ObjectiveSettings]] = {
    settings.name: settings
    for settings in (
        SimCLRSettings,
        TSimCLRSettings,
        CLIPSettings,
        SigLIPSettings,
        VICRegSettings,
        ALIGNSettings,
    )
}
