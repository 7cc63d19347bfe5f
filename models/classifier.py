"""Classifiers: a fusion with the loss and the activation of one kind of task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from datasets.schema import Batch, FeatureBatch, grid_layout
from models.encoders import (
    EHR_ENCODERS,
    FIELDS_OF_ENCODER,
    CausalEncoder,
    Encoder,
    EncoderConfig,
    build_encoders,
    is_torchvision,
    start_external,
)
from models.encoders.families import (
    IMAGENET_WEIGHTS,
    NO_ENCODER,
    RANDOM_WEIGHTS,
    UNKNOWN_WEIGHTS,
    weights_label,
)
from models.fusion import (
    FUSIONS,
    BranchLogits,
    Fusion,
    FusionConfig,
    LinearFusion,
    Supervision,
    build_fusion,
    get_fusion,
)
from models.heads import HeadedEncoder, build_heads
from models.losses import binary_cross_entropies, class_cross_entropies
from models.pretraining import check_variables, load_pretrained, read_pretraining
from utils import checkpoint
from utils.config import from_dict, to_dict
from utils.device import float64_device
from utils.log import logger
from utils.state_dict import is_state_dict_file


class OutputHead(NamedTuple):
    """Loss (sum and number of cross-entropies) and activation for one kind of task."""

    cross_entropies: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    activation: Callable[[Tensor], Tensor]


OUTPUT_HEADS: dict[str, OutputHead] = {
    "binary": OutputHead(binary_cross_entropies, torch.sigmoid),
    "multilabel": OutputHead(binary_cross_entropies, torch.sigmoid),
    "ordinal": OutputHead(class_cross_entropies, lambda logits: logits.softmax(dim=-1)),
}


@dataclass(frozen=True)
class ClassifierConfig:
    """How to build a classifier, and how result tables describe it. Its checkpoint stores both.

    `fusion_layer` 0 classifies from the outputs of the encoders, 3 from those of their projection heads,
    which have this `width`. `objective` is what trained the encoders before ("supervised" and "random" mean
    nothing did; weights from elsewhere are "external", or the name of their family), `checkpoint` the file
    they were loaded from. If the two encoders differ, both fields name both: "simclr + supervised".
    `label_fraction` is the fraction of the training subjects whose labels it learns from. `cxr_weights` says
    with which weights the image encoder began, before any pretraining, or that beside which a record encoder
    was pretrained.
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
    label_fraction: float = 1.0
    cxr_weights: str = UNKNOWN_WEIGHTS

    def __post_init__(self) -> None:
        """Raise ValueError, naming the flag, if the fusion does not fit the other settings."""
        fusion = get_fusion(self.fusion)
        own = {field.name for field in fields(fusion.settings)}
        for name, default in to_dict(FusionConfig()).items():
            if name not in own and getattr(self.fusion_settings, name) != default:
                raise ValueError(f"--fusion {self.fusion} has no setting --{name}; leave it out")
        if fusion.intermediate and self.fusion_layer == 3:
            raise ValueError(
                f"--fusion {self.fusion} acts inside the encoders, which then have no projection heads; use "
                "--fusion_layer 0"
            )
        encoder = self.encoders.ehr_encoder
        if fusion.intermediate and not issubclass(EHR_ENCODERS[encoder], CausalEncoder):
            able = [name for name, kind in EHR_ENCODERS.items() if issubclass(kind, CausalEncoder)]
            raise ValueError(
                f"--fusion {self.fusion} changes the states of the hours, and --ehr_encoder {encoder} has "
                f"none; use {', '.join(able)}"
            )
        if self.protocol == "lineareval" and not issubclass(fusion, LinearFusion):
            raise ValueError(
                f"--fusion {self.fusion} trains more than the one linear layer of --protocol lineareval; use "
                "--fusion ehr, cxr or concatenation"
            )

    @property
    def encoder_columns(self) -> dict[str, str]:
        """What result rows say of the encoders, by column."""
        names = get_fusion(self.fusion).encoder_names()
        return {
            "ehr_encoder": self.encoders.ehr_encoder if "ehr" in names else NO_ENCODER,
            "vision_backbone": self.encoders.vision_backbone if "cxr" in names else NO_ENCODER,
            "cxr_weights": self.cxr_weights,
        }


class Classifier(nn.Module):
    """The loss of a batch (an objective, as in pretraining), and the probabilities of its samples."""

    def __init__(self, fusion: nn.Module, kind: str) -> None:
        super().__init__()
        self.fusion = fusion
        self.output_head = OUTPUT_HEADS[kind]

    def forward(self, batch: Batch | FeatureBatch) -> dict[str, Tensor]:
        """Return {"loss", "count"}: the mean cross-entropy of the known labels, and their number.

        If the fusion has several branches, a label counts once for each branch that is valid for its sample.
        Losses of the fusion itself are added to the loss; then the terms have each by its name, and the
        "cross_entropy".
        """
        return self._loss(self._supervise(batch), batch.labels)

    def predict(self, batch: Batch | FeatureBatch) -> Tensor:
        """Return the probabilities of B samples, [B, outputs] float64: the mean over the valid branches."""
        return self._probabilities(self._branches(self.fusion(batch)))

    def evaluate(self, batch: Batch | FeatureBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Return what `forward` and `predict` return, from one pass."""
        supervision = self._supervise(batch)
        return self._loss(supervision, batch.labels), self._probabilities(self._branches(supervision.logits))

    def _loss(self, supervision: Supervision, labels: Tensor) -> dict[str, Tensor]:
        logits, valid = self._branches(supervision.learning_logits())
        labels = torch.where(valid[..., None], labels, torch.nan)
        total, known = self.output_head.cross_entropies(logits.flatten(0, 1), labels.flatten(0, 1))
        loss = total / known.clamp(min=1.0)
        if not supervision.losses:
            return {"loss": loss, "count": known}
        terms = {"cross_entropy": loss, **supervision.losses}
        return {"loss": torch.stack([*terms.values()]).sum(), "count": known, **terms}

    def _probabilities(self, branches: BranchLogits) -> Tensor:
        """Average over the branches in float64: in float32, logits of 17, 18 and 19 have one probability."""
        logits, valid = (part.to(float64_device(part.device)).double() for part in branches)
        weights = valid / valid.sum(dim=0)
        return (self.output_head.activation(logits) * weights[..., None]).sum(dim=0)

    def after_backward(self) -> None:
        """Let the fusion change the gradients of a step."""
        if isinstance(self.fusion, Fusion):
            self.fusion.after_backward()

    def end_epoch(self, epoch: int) -> None:
        """Let the fusion prepare the next epoch."""
        if isinstance(self.fusion, Fusion):
            self.fusion.end_epoch(epoch)

    def _supervise(self, batch: Batch | FeatureBatch) -> Supervision:
        if isinstance(self.fusion, Fusion) and isinstance(batch, Batch):
            return self.fusion.supervise(batch)
        return Supervision(self.fusion(batch), {})

    @staticmethod
    def _branches(logits: Tensor | BranchLogits) -> BranchLogits:
        if isinstance(logits, BranchLogits):
            return logits
        return BranchLogits(logits[None], logits.new_ones((1, len(logits)), dtype=torch.bool))

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules by the names of a checkpoint's parts; encoders and heads as in pretraining."""
        parts: dict[str, nn.Module] = {}
        for name, module in self.fusion.named_children():
            if isinstance(module, HeadedEncoder):
                parts |= {name: module.encoder, name.replace("_encoder", "_head"): module.head}
            else:
                parts[name] = module
        return parts


def build_classifier(config: ClassifierConfig, download: bool = True) -> Classifier:
    """Build a classifier with fresh weights; `download` as in CXREncoder."""
    modalities = FUSIONS[config.fusion].modalities
    encoders = build_encoders(config.encoders, modalities, download)
    if config.fusion_layer == 3:
        heads = build_heads(encoders, config.width)
        encoders = {name: HeadedEncoder(encoder, heads[name]) for name, encoder in encoders.items()}
    fusion = build_fusion(config.fusion, encoders, config.outputs, config.kind, config.fusion_settings)
    return Classifier(fusion, config.kind)


def start_classifier(
    config: ClassifierConfig, sources: Mapping[str, str]
) -> tuple[Classifier, ClassifierConfig]:
    """Build a classifier whose encoders start from checkpoints; return it and how it was built.

    `sources` are paths by modality: pretraining or classifier checkpoints, which decide the architecture of
    their encoders, or (for X-rays) a state dict from elsewhere. Other encoders are fresh.

    Raises:
        ValueError: A checkpoint lacks the encoder (or the head, at fusion_layer 3) or has other shapes.
    """
    external = {modality: path for modality, path in sources.items() if is_state_dict_file(path)}
    ours = {modality: path for modality, path in sources.items() if modality not in external}
    states = {path: checkpoint.load_lazily(Path(path)) for path in dict.fromkeys(ours.values())}
    own = IMAGENET_WEIGHTS if config.encoders.pretrained else RANDOM_WEIGHTS
    has_images = "cxr" in FUSIONS[config.fusion].encoder_names()
    config = replace(config, cxr_weights=own if has_images else NO_ENCODER)
    if sources:
        config = _built_from(config, sources, {modality: states[path] for modality, path in ours.items()})
    classifier = build_classifier(config, download="cxr" not in sources)
    for modality in sources:
        if f"{modality}_encoder" not in classifier.parts():
            raise ValueError(
                f"--fusion {config.fusion} with these settings has no encoder for {modality}; leave out "
                f"--load_state_{modality}, or --load_state"
            )
    for modality, path in ours.items():
        names = (f"{modality}_encoder", f"{modality}_head")
        parts = {name: part for name, part in classifier.parts().items() if name in names}
        with checkpoint.error_context(path, f"give another checkpoint with --load_state_{modality}"):
            load_pretrained(parts, states[path])
    for path in external.values():
        encoder = classifier.parts()["cxr_encoder"]
        assert isinstance(encoder, Encoder)
        start_external(encoder, config.encoders.vision_backbone, path)
    if "MIMIC-CXR" in config.cxr_weights and not external:
        logger.warning(
            f"a pretraining began with {config.cxr_weights}: scores may be too good; tables say so"
        )
    return classifier, config


def _built_from(
    config: ClassifierConfig, sources: Mapping[str, str], states: Mapping[str, checkpoint.Checkpoint]
) -> ClassifierConfig:
    """Return how a classifier is built from sources by modality; `states` are those that are checkpoints.

    The others are weights from elsewhere, for which images are normalised as theirs were: torchvision's as
    ImageNet's, others as their encoder says.
    """
    pretrainings = {modality: read_pretraining(state) for modality, state in states.items()}
    settings = {
        name: getattr(pretraining.encoders, name)
        for modality, pretraining in pretrainings.items()
        for name in FIELDS_OF_ENCODER[modality]
    }
    backbone = config.encoders.vision_backbone
    if sources.keys() - states.keys():
        settings["pretrained"] = is_torchvision(backbone)
    label = weights_label(backbone)
    objectives = [pretrainings[m].objective if m in pretrainings else label for m in sources]
    weights = [pretrainings[m].cxr_weights if m in pretrainings else label for m in sources]
    if "cxr" not in sources:
        weights.append(config.cxr_weights)
    return replace(
        config,
        encoders=replace(config.encoders, **settings),
        width=next((item.width for item in pretrainings.values()), config.width),
        objective=" + ".join(dict.fromkeys(objectives)),
        checkpoint=" + ".join(dict.fromkeys(sources.values())),
        cxr_weights=" + ".join(dict.fromkeys(name for name in weights if name != NO_ENCODER)) or NO_ENCODER,
    )


def classifier_checkpoint(classifier: Classifier, config: ClassifierConfig) -> dict[str, object]:
    """Return the content of a classifier's checkpoint, {"parts": {name: state_dict}, "config": dict}."""
    return {
        "parts": {name: module.state_dict() for name, module in classifier.parts().items()},
        "config": to_dict(config),
        "variables": grid_layout(),
    }


def read_classifier(path: Path) -> tuple[Classifier, ClassifierConfig, int]:
    """Load the classifier in a checkpoint, its configuration and its epoch.

    Raises:
        ValueError: The checkpoint holds no classifier, or one of another version.
    """
    state = checkpoint.load(path)
    if "fusion" not in state["config"]:
        raise ValueError(f"{path} holds no classifier, only encoders; give the best.ckpt of run_gpu.py")
    config = from_dict(ClassifierConfig, state["config"], str(path))
    classifier = build_classifier(config, download=False)
    with checkpoint.error_context(path, "give the best.ckpt of a run of this version"):
        load_classifier(classifier, state)
    return classifier, config, state["epoch"]


def load_classifier(classifier: Classifier, state: checkpoint.Parts) -> None:
    """Load every part of a classifier, strictly."""
    if isinstance(classifier.fusion, Fusion) and "ehr" in classifier.fusion.modalities:
        check_variables(state)
    for name, module in classifier.parts().items():
        logger.info(f"loaded {checkpoint.load_part(module, state, name)}")
