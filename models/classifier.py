"""A fusion under the loss and the probabilities of a kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from datasets.schema import Batch, FeatureBatch
from models.encoders import FIELDS_OF_ENCODER, EncoderConfig, build_encoders
from models.fusion import FUSIONS, BranchLogits, FusionConfig, LinearFusion, build_fusion
from models.heads import HeadedEncoder, build_heads
from models.losses import binary_cross_entropies, class_cross_entropies
from models.pretraining import load_pretrained, read_pretraining
from utils import checkpoint
from utils.config import from_dict, to_dict


class OutputHead(NamedTuple):
    """What a kind of task makes of logits: with labels, sum and number of entropies; and probabilities."""

    entropies: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    probabilities: Callable[[Tensor], Tensor]


KINDS: dict[str, OutputHead] = {
    "binary": OutputHead(binary_cross_entropies, torch.sigmoid),
    "multilabel": OutputHead(binary_cross_entropies, torch.sigmoid),
    "ordinal": OutputHead(class_cross_entropies, lambda logits: logits.softmax(dim=-1)),
}


@dataclass(frozen=True)
class ClassifierConfig:
    """How to build a classifier, and what results tell of it; its checkpoint carries both.

    fusion_layer: 0 classifies from the encoders' outputs, 3 from those of their projection heads of `width`.
    objective: what trained the encoders before this task ("supervised" and "random": nothing did);
    checkpoint: the file that they came from. Of two, both are named: "simclr + supervised".
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
    fusion_settings: FusionConfig = field(default_factory=FusionConfig)

    def __post_init__(self) -> None:
        """ValueError, naming the flag, for what the fusion cannot do."""
        fusion, default = FUSIONS[self.fusion], FusionConfig()
        unused = [
            f"--{name}"
            for name, value in to_dict(self.fusion_settings).items()
            if name not in fusion.settings and value != getattr(default, name)
        ]
        rules = {
            f"has no setting {', '.join(unused)}; leave it out": unused,
            "acts inside the encoders, where no heads can be; use --fusion_layer 0": fusion.intermediate
            and self.fusion_layer == 3,
            "learns more than the one linear layer of --protocol lineareval; use --fusion ehr, cxr or "
            "concatenation": self.protocol == "lineareval" and not issubclass(fusion, LinearFusion),
        }
        for message, broken in rules.items():
            if broken:
                raise ValueError(f"--fusion {self.fusion} {message}")


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
        """Batch -> {"loss", "count"}: the mean cross-entropy of the known labels, and their number.

        Where a fusion has several opinions, a label counts once for each that can judge its sample.
        """
        logits, valid = self._opinions(batch)
        labels = torch.where(valid[..., None], batch.labels, torch.nan)
        entropies, known = self.kind.entropies(logits.flatten(0, 1), labels.flatten(0, 1))
        return {"loss": entropies / known.clamp(min=1.0), "count": known}

    def predict(self, batch: Batch | FeatureBatch) -> Tensor:
        """Batch of B samples -> probabilities [B, outputs] float32: the mean over opinions."""
        logits, valid = self._opinions(batch)
        shares = valid / valid.sum(dim=0)
        return (self.kind.probabilities(logits.float()) * shares[..., None]).sum(dim=0)

    def _opinions(self, batch: Batch | FeatureBatch) -> BranchLogits:
        logits = self.fusion(batch)
        if isinstance(logits, BranchLogits):
            return logits
        return BranchLogits(logits[None], logits.new_ones((1, len(logits)), dtype=torch.bool))

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
    modalities = FUSIONS[config.fusion].modalities
    encoders = build_encoders(config.encoders, modalities, download)
    if config.fusion_layer == 3:
        heads = build_heads(encoders, config.width)
        encoders = {name: HeadedEncoder(encoder, heads[name]) for name, encoder in encoders.items()}
    fusion = build_fusion(config.fusion, encoders, config.outputs, config.fusion_settings)
    return Classifier(fusion, config.kind)


def start_classifier(
    config: ClassifierConfig, sources: Mapping[str, str]
) -> tuple[Classifier, ClassifierConfig]:
    """A classifier whose encoders start from checkpoints, and how it was built.

    sources: {modality: path of a pretraining's or a classifier's checkpoint}; encoders of other modalities
    are fresh, in the shape that `config` gives. ValueError if a checkpoint holds no such encoder (or head, at
    fusion_layer 3), or a part of another shape.
    """
    states = {path: checkpoint.load(Path(path)) for path in dict.fromkeys(sources.values())}
    if states:
        made = {modality: read_pretraining(states[path]) for modality, path in sources.items()}
        shape = {
            name: getattr(made[modality].encoders, name)
            for modality in made
            for name in FIELDS_OF_ENCODER[modality]
        }
        config = replace(
            config,
            encoders=replace(config.encoders, **shape),
            width=next(iter(made.values())).width,
            objective=" + ".join(dict.fromkeys(pretraining.objective for pretraining in made.values())),
            checkpoint=" + ".join(states),
        )
    classifier = build_classifier(config, download="cxr" not in sources)
    for modality, path in sources.items():
        names = (f"{modality}_encoder", f"{modality}_head")
        parts = {name: part for name, part in classifier.parts().items() if name in names}
        with checkpoint.error_context(path, f"give another checkpoint by --load_state_{modality}"):
            load_pretrained(parts, states[path])
    return classifier, config


def classifier_checkpoint(classifier: Classifier, config: ClassifierConfig) -> dict[str, object]:
    """What a checkpoint of a classifier, or of a part of it, holds: {"parts": ..., "config": plain dict}."""
    return {
        "parts": {name: module.state_dict() for name, module in classifier.parts().items()},
        "config": to_dict(config),
    }


def read_classifier(path: Path) -> tuple[Classifier, ClassifierConfig, int]:
    """The classifier in a checkpoint, its configuration and its epoch; ValueError if it holds none."""
    state = checkpoint.load(path)
    if "fusion" not in state["config"]:
        raise ValueError(
            f"{path} holds encoders and no classifier; give the best.ckpt of a run of run_gpu.py"
        )
    config = from_dict(ClassifierConfig, state["config"], str(path))
    classifier = build_classifier(config, download=False)
    with checkpoint.error_context(path, "give the best.ckpt of a run of this version"):
        load_classifier(classifier, state)
    return classifier, config, state["epoch"]


def load_classifier(classifier: Classifier, state: checkpoint.Parts) -> None:
    """Loads every part of a classifier, strictly."""
    for name, module in classifier.parts().items():
        checkpoint.load_part(module, state, name)
