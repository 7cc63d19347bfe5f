"""What a pretraining leaves for others: encoders, heads, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import nn

from models.encoders import EncoderConfig
from utils.checkpoint import Checkpoint, Parts, load_part
from utils.config import from_dict, to_dict

PARTS = ("ehr_encoder", "cxr_encoder", "ehr_head", "cxr_head")


@dataclass(frozen=True)
class Pretraining:
    """How to build the parts of a checkpoint again, and the objective that trained them.

    width: that of the heads (models.heads.build_heads), 0 for heads of one linear layer.
    """

    objective: str
    encoders: EncoderConfig
    width: int = 1


def pretraining_checkpoint(
    pretraining: Pretraining, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]
) -> dict[str, object]:
    """What a checkpoint of a pretraining holds: {"parts": {name: state_dict}, "config": plain dict}.

    >>> one = {"ehr": nn.Linear(2, 2)}
    >>> list(pretraining_checkpoint(Pretraining("simclr", EncoderConfig()), one, one)["parts"])
    ['ehr_encoder', 'ehr_head']
    """
    named = {f"{name}_encoder": module for name, module in encoders.items()}
    named |= {f"{name}_head": module for name, module in heads.items()}
    parts = {name: module.state_dict() for name, module in named.items()}
    return {"parts": parts, "config": to_dict(pretraining)}


def read_pretraining(checkpoint: Checkpoint) -> Pretraining:
    """How the encoders of a checkpoint were made: of a pretraining, or of a classifier that began with one.

    ValueError if the checkpoint does not say so.
    """
    config = checkpoint["config"]
    known = {field.name: config[field.name] for field in fields(Pretraining) if field.name in config}
    return from_dict(Pretraining, known, "the checkpoint")


def load_pretrained(modules: Mapping[str, nn.Module], checkpoint: Parts) -> list[str]:
    """Loads the encoders and heads among named modules, strictly; returns what was loaded, a line a part."""
    return [load_part(module, checkpoint, name) for name, module in modules.items() if name in PARTS]
