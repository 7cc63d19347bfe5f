"""Checkpoints of a pretraining: encoders, heads, and how they were built."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import nn

from datasets.schema import grid_layout, layout_difference
from models.encoders import EncoderConfig
from models.encoders.families import UNKNOWN_WEIGHTS
from utils.checkpoint import Checkpoint, Parts, load_part
from utils.config import from_dict, to_dict
from utils.log import logger

PARTS = ("ehr_encoder", "cxr_encoder", "ehr_head", "cxr_head")


@dataclass(frozen=True)
class Pretraining:
    """How to rebuild the encoders and heads (of this `width`) of a checkpoint, and their objective.

    `cxr_weights` says with which weights the image encoder began.
    """

    objective: str
    encoders: EncoderConfig
    width: int = 1
    cxr_weights: str = UNKNOWN_WEIGHTS


def pretraining_checkpoint(
    pretraining: Pretraining, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]
) -> dict[str, object]:
    """Return the content of a pretraining's checkpoint, {"parts": {name: state_dict}, "config": dict}."""
    parts = {f"{name}_encoder": module.state_dict() for name, module in encoders.items()}
    parts |= {f"{name}_head": module.state_dict() for name, module in heads.items()}
    return {"parts": parts, "config": to_dict(pretraining), "variables": grid_layout()}


def read_pretraining(checkpoint: Checkpoint) -> Pretraining:
    """Read how the encoders of a checkpoint were built: a pretraining's, or those of a classifier."""
    config = checkpoint["config"]
    values = {field.name: config[field.name] for field in fields(Pretraining) if field.name in config}
    return from_dict(Pretraining, values, "the checkpoint")


def load_pretrained(modules: Mapping[str, nn.Module], checkpoint: Parts) -> list[str]:
    """Load the encoders and heads among the modules, strictly; return one line for each loaded part."""
    if "ehr_encoder" in modules:
        check_variables(checkpoint)
    loaded = [load_part(module, checkpoint, name) for name, module in modules.items() if name in PARTS]
    for part in loaded:
        logger.info(f"loaded {part}")
    return loaded


def check_variables(checkpoint: Parts) -> None:
    """Raise ValueError if what reads the hours was trained on other variables."""
    recorded = checkpoint.get("variables")
    if recorded is not None and (difference := layout_difference(recorded)):
        raise ValueError(f"it was trained {difference}")
