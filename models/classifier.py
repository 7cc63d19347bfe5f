"""A fusion under the loss and the probabilities of a kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import EncoderConfig, build_encoders
from models.features import FeatureBatch
from models.fusion import FUSIONS
from models.heads import HeadedEncoder, build_heads
from models.losses import binary_cross_entropies, class_cross_entropies
from utils import checkpoint
from utils.config import build, plain


class Kind(NamedTuple):
    """What a kind of task makes of logits: with labels, sum and number of entropies; and probabilities."""

    entropies: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    probabilities: Callable[[Tensor], Tensor]


KINDS: dict[str, Kind] = {
    "binary": Kind(binary_cross_entropies, torch.sigmoid),
    "multilabel": Kind(binary_cross_entropies, torch.sigmoid),
    "ordinal": Kind(class_cross_entropies, lambda logits: logits.softmax(dim=1)),
}


@dataclass(frozen=True)
class ClassifierConfig:
    """How to build a classifier, and what results tell of it; its checkpoint carries both.

    fusion_layer: 0 classifies from the encoders' outputs, 3 from those of their projection heads of `width`.
    objective: what trained the encoders before this task ("supervised" and "random": nothing did);
    checkpoint: the file that they came from.
    """

    fusion: str
    kind: Literal["binary", "multilabel", "ordinal"]
    outputs: int
    encoders: EncoderConfig
    fusion_layer: Literal[0, 3] = 0
    width: int = 1
    objective: str = "supervised"
    task: str = ""
    protocol: str = "supervised"
    checkpoint: str = ""


class Classifier(nn.Module):
    """An objective and a predictor in one: the loss of a batch, and the probabilities of its samples.

    >>> classifier = Classifier(nn.Softplus(), "ordinal")  # any module from batch to logits
    >>> classifier.predict(torch.zeros(1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def __init__(self, fusion: nn.Module, kind: str) -> None:
        super().__init__()
        self.fusion = fusion
        self.kind = KINDS[kind]

    def forward(self, batch: Batch | FeatureBatch) -> dict[str, Tensor]:
        """Batch -> {"loss", "count"}: the mean cross-entropy of the known labels, and their number."""
        entropies, known = self.kind.entropies(self.fusion(batch), batch.labels)
        return {"loss": entropies / known.clamp(min=1.0), "count": known}

    def predict(self, batch: Batch | FeatureBatch) -> Tensor:
        """Batch of B samples -> probabilities [B, outputs] float32."""
        return self.kind.probabilities(self.fusion(batch).float())

    def parts(self) -> dict[str, nn.Module]:
        """Its modules by the names of a checkpoint's parts: encoders and heads as pretraining names them."""
        parts: dict[str, nn.Module] = {}
        for name, module in self.fusion.named_children():
            if isinstance(module, HeadedEncoder):
                parts |= {name: module.encoder, name.replace("_encoder", "_head"): module.head}
            else:
                parts[name] = module
        return parts


def build_classifier(config: ClassifierConfig, download: bool = True) -> Classifier:
    """A classifier with fresh weights; `download` as in CXREncoder.

    >>> encoders = EncoderConfig(vision_backbone="resnet18")
    >>> list(build_classifier(ClassifierConfig("concatenation", "binary", 1, encoders)).parts())
    ['ehr_encoder', 'cxr_encoder', 'linear']
    """
    fusion = FUSIONS[config.fusion]
    encoders: dict[str, nn.Module] = dict(build_encoders(config.encoders, fusion.modalities, download))
    if config.fusion_layer == 3:
        heads = build_heads(encoders, config.width)
        encoders = {name: HeadedEncoder(encoder, heads[name]) for name, encoder in encoders.items()}
    return Classifier(fusion(encoders, config.outputs), config.kind)


def classifier_checkpoint(classifier: Classifier, config: ClassifierConfig) -> dict[str, object]:
    """What a checkpoint of a classifier, or of a part of it, holds: {"parts": ..., "config": plain dict}."""
    return {
        "parts": {name: module.state_dict() for name, module in classifier.parts().items()},
        "config": plain(config),
    }


def read_classifier(path: Path) -> tuple[Classifier, ClassifierConfig, int]:
    """The classifier in a checkpoint, its configuration and its epoch; ValueError if it holds none."""
    state = checkpoint.load(path)
    if "fusion" not in state["config"]:
        raise ValueError(
            f"{path} holds encoders and no classifier; give the best.ckpt of a run of run_gpu.py"
        )
    config = build(ClassifierConfig, state["config"], str(path))
    classifier = build_classifier(config, download=False)
    load_classifier(classifier, state)
    return classifier, config, state["epoch"]


def load_classifier(classifier: Classifier, state: Mapping[str, object]) -> None:
    """Loads every part of a classifier, strictly."""
    for name, module in classifier.parts().items():
        checkpoint.load_part(module, state, name)
