"""The settings of run_gpu.py, and the rules that they must follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from datasets.data_config import SAMPLE_SELECTIONS, DataConfig
from models.encoders import FIELDS_OF_ENCODER, EncoderConfig
from models.encoders.families import check_image_size
from models.fusion import FUSIONS, FusionConfig, FusionName
from tasks import TASKS, TaskName
from training.early_stopping import PatienceConfig
from training.optim import OptimConfig, check_flag, warn_of_unused_flags
from utils.choices import require_choice
from utils.config import neutral, resumable, searched
from utils.log import logger
from utils.run_config import RunConfig
from utils.state_dict import check_weights_file, is_state_dict_file

if TYPE_CHECKING:
    from models.classifier import ClassifierConfig

RANDOM = "random"  # --load_state of untrained encoders


@dataclass(frozen=True)
class ClassifierOptim(OptimConfig):
    """How a classifier is optimized: newly initialized weights may learn faster than pretrained encoders."""

    head_lr: float = searched(0.0, 1e-4, 1e-1, log=True)
    """Peak learning rate of all weights outside the encoders; 0: --lr."""
    layer_lr_decay: float = searched(1.0, 0.3, 1.0)
    """Factor from each layer of an encoder to the one before it; the last one has it too, times --lr. Layers
    are those of the LSTM, and the stem and four blocks of the image encoder. 1: all learn at --lr."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("head_lr", self.head_lr, self.head_lr >= 0, "use a number above 0, or 0 for --lr")
        decay = self.layer_lr_decay
        check_flag("layer_lr_decay", decay, 0 < decay <= 1, "use a number above 0, up to 1")


@dataclass(frozen=True)
class HeadStartConfig:
    """Where the linear layer of a fine-tuning begins."""

    head_start: Literal["random", "probe"] = "random"
    """For finetune. probe: the linear layer begins as the one that linear evaluation of the frozen encoders
    would train, so that the first steps do not spoil what these know (Kumar et al. 2022). It counts as epoch
    0, and is the best unless an epoch validates better."""
    probe_epochs: int = 100
    """Epochs of that linear layer over the features of the training samples; the one with the best validation
    score counts."""
    probe_lr: float = 0.01
    """Its learning rate at the start."""


@dataclass(frozen=True)
class ClassifyConfig:
    """Train a classifier for a task and test its best epoch, or evaluate a trained classifier."""

    synonyms: ClassVar = {
        "checkpoint": "load_state",
        "ckpt": "load_state",
        "weights": "load_state",
        "pretrained_model": "load_state",
        "model": "fusion",
        "fusion_type": "fusion",
    }

    protocol: Literal["supervised", "finetune", "lineareval"] = "lineareval"
    """supervised trains everything from the start, finetune starts from pretrained encoders; lineareval
    trains one linear layer on the features of frozen, pretrained encoders."""
    mode: Literal["train", "eval"] = "train"
    """train also tests the best epoch; eval tests the classifier in --load_state."""
    task: TaskName = "in-hospital-mortality"
    """What to predict."""
    fusion: FusionName = "concatenation"
    """Which modalities to classify from, and how to fuse them."""
    load_state: str = neutral("")
    """Checkpoint with the encoders (finetune, lineareval) or with the whole classifier (--mode eval); random:
    untrained encoders, as a baseline for lineareval."""
    load_state_ehr: str = neutral("")
    """Checkpoint of the EHR encoder, from a pretraining or from a classifier such as --fusion ehr. With every
    --protocol; overrides --load_state for this encoder."""
    load_state_cxr: str = neutral("")
    """The same for the image encoder."""
    cxr_weights: str = neutral("")
    """File of weights of --vision_backbone that were trained elsewhere, in place of --load_state_cxr: a state
    dict (.pth, .pt, .bin) or .safetensors. Every tensor must fit, and nothing is unpickled."""
    keep_features: bool = neutral(True)
    """Keep the features of frozen encoders beside the store, in STORE.features, for later runs with the same
    weights; each X-ray, and each record of a task without hourly samples, is then encoded once."""
    frozen_views: Literal["random", "central"] = "random"
    """Views of X-rays in training where the image encoder is frozen (--fusion early): random, as published,
    or central, of which each X-ray is encoded once. Linear evaluation always takes central ones."""
    fusion_layer: Literal[0, 3] = 0
    """Classify from the outputs of the encoders (0) or of their projection heads (3)."""
    results_dir: Path = neutral(Path("results"))
    """Folder of the result tables, one per task."""
    bootstrap: int = neutral(1000)
    """Bootstrap resamples of a split's subjects, for the 95 % intervals of the scores; 0: no intervals."""
    subgroups: str = neutral("")
    """Also score subgroups of the patients and the gap between them: any of age, sex, race, admission, unit,
    years and has_xray, separated by commas; sex+race is an intersection."""
    label_fraction: float = 1.0
    """Fraction of the training subjects whose labels are used, above 0 and up to 1, drawn with the run's
    seed. A larger fraction includes the subjects of a smaller one, and no class vanishes. Validation and test
    keep all labels."""
    batch_by: Literal["auto", "stay", "sample"] = "auto"
    """stay: training batches of whole stays, --batch_size samples to within one stay; a stay and an X-ray are
    encoded once a batch. sample: batches of any samples, as published. auto: stay for a task with a sample
    per hour, else sample."""
    fusion_settings: FusionConfig = field(default_factory=FusionConfig)
    start: HeadStartConfig = field(default_factory=HeadStartConfig)
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: ClassifierOptim = resumable(ClassifierOptim())
    stopping: PatienceConfig = resumable(PatienceConfig())  # the task names the monitor
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        require_choice(TASKS, self.task, "task")
        require_choice(FUSIONS, self.fusion, "fusion")

    @property
    def encoder_checkpoints(self) -> dict[str, str]:
        """Path of the checkpoint of each encoder of the fusion that starts from one, by modality."""
        own = {"ehr": self.load_state_ehr, "cxr": self.load_state_cxr or self.cxr_weights}
        paths = {name: own[name] or self.load_state for name in FUSIONS[self.fusion].encoder_names()}
        return {modality: path for modality, path in paths.items() if path not in ("", RANDOM)}

    @property
    def has_all_checkpoints(self) -> bool:
        """Whether every encoder of the fusion starts from a checkpoint."""
        return len(self.encoder_checkpoints) == len(FUSIONS[self.fusion].encoder_names())

    @property
    def allows_untrained_encoders(self) -> bool:
        """Whether encoders without a checkpoint start from random weights."""
        return self.mode == "train" and (self.protocol == "supervised" or self.load_state == RANDOM)


def classifier_config(config: ClassifyConfig) -> ClassifierConfig:
    """Return how to build the classifier; the checkpoints of its encoders override their architecture."""
    from models.classifier import ClassifierConfig  # with PyTorch, which --help does not need
    from models.encoders import with_shape

    task = TASKS[config.task]
    return ClassifierConfig(
        fusion=config.fusion,
        kind=task.kind,
        outputs=task.outputs,
        encoders=with_shape(config.encoders),
        fusion_layer=config.fusion_layer,
        objective=RANDOM if config.load_state == RANDOM else "supervised",
        task=task.name,
        protocol=config.protocol,
        checkpoint=config.load_state,
        fusion_settings=config.fusion_settings,
        label_fraction=config.label_fraction,
    )


def check_config(config: ClassifyConfig) -> None:
    """Raise ValueError, naming the flags and what to do, if settings contradict each other."""
    from evaluation.subgroups import parse_subgroups  # with pandas
    from models.encoders.vision import check_backbone  # with PyTorch

    classifier_config(config)  # checks the settings of the fusion
    parse_subgroups(config.subgroups)
    if config.bootstrap < 0:
        raise ValueError(f"--bootstrap must be 0 or more resamples, not {config.bootstrap}")
    check_label_fraction(config)
    check_fine_tuning(config)
    check_batch_by(config)
    if "cxr" in FUSIONS[config.fusion].modalities:
        check_backbone(config.encoders.vision_backbone)
        check_image_size(config.encoders.vision_backbone, config.data.image_size)
    check_frozen_views(config)
    check_load_state(config)
    check_encoder_flags(config)
    check_encoder_checkpoints(config)
    check_modalities(config.fusion, config.data.data_pairs)
    if config.mode == "train":
        warn_of_unused_flags(config.optim)


def check_frozen_views(config: ClassifyConfig) -> None:
    """Raise ValueError if --frozen_views has no effect, because no fusion with frozen encoders is trained."""
    if config.frozen_views != "random" and (
        config.mode == "eval" or not FUSIONS[config.fusion].freezes_encoders
    ):
        raise ValueError(
            f"--frozen_views {config.frozen_views} is for training a fusion with frozen encoders; leave it "
            "out, or use --fusion early"
        )


def check_fine_tuning(config: ClassifyConfig) -> None:
    """Raise ValueError if settings of fine-tuning are given where they have no effect."""
    start, default = config.start, HeadStartConfig()
    check_flag("probe_epochs", start.probe_epochs, start.probe_epochs >= 1, "use 1 or more")
    check_flag("probe_lr", start.probe_lr, start.probe_lr > 0, "use a number above 0")
    trains_encoders = config.mode == "train" and config.protocol != "lineareval"
    if config.optim.layer_lr_decay < 1 and not trains_encoders:
        raise ValueError(
            f"--layer_lr_decay {config.optim.layer_lr_decay} is for the layers of encoders, and --mode "
            f"{config.mode} --protocol {config.protocol} trains none; leave it out"
        )
    if start.head_start == "random" and start != default:
        raise ValueError(
            "--probe_epochs and --probe_lr are for --head_start probe; add that, or leave them out"
        )
    if start.head_start == "probe" and (config.protocol != "finetune" or config.mode == "eval"):
        raise ValueError("--head_start probe is for --mode train --protocol finetune; leave it out")
    if start.head_start == "probe" and config.fusion not in ("ehr", "cxr", "concatenation"):
        raise ValueError(
            f"--head_start probe: the head of --fusion {config.fusion} is no linear layer on features; use "
            "--fusion ehr, cxr or concatenation, or leave it out"
        )


def check_label_fraction(config: ClassifyConfig) -> None:
    """Raise ValueError if --label_fraction is no fraction, or given although nothing is trained."""
    fraction = config.label_fraction
    check_flag("label_fraction", fraction, 0 < fraction <= 1, "use a number above 0, up to 1")
    if fraction < 1 and config.mode == "eval":
        raise ValueError(
            f"--mode eval --label_fraction {fraction}: the checkpoint says from which labels its classifier "
            "learnt; leave it out"
        )


def check_batch_by(config: ClassifyConfig) -> None:
    """Raise ValueError if --batch_by has no effect, because no encoder is trained."""
    if config.batch_by != "auto" and (config.protocol == "lineareval" or config.mode == "eval"):
        raise ValueError(
            f"--mode {config.mode} --protocol {config.protocol} trains no encoder, and encodes each stay "
            "once; leave out --batch_by"
        )


def check_load_state(config: ClassifyConfig) -> None:
    """Raise ValueError if --load_state is missing, or given although nothing is loaded."""
    flags = f"--mode {config.mode} --protocol {config.protocol}"
    if config.mode == "eval":
        needs_checkpoint = config.load_state in ("", RANDOM)
    else:
        needs_checkpoint = not (config.allows_untrained_encoders or config.has_all_checkpoints)
    if needs_checkpoint:
        names = FUSIONS[config.fusion].encoder_names() if config.mode == "train" else ()
        own = [f"--load_state_{name}" for name in names if name not in config.encoder_checkpoints]
        others = f", or {' and '.join(own)} for what has none yet" if own else ""
        raise ValueError(f"{flags} needs --load_state, the path of a checkpoint{others}")
    if config.mode == "train" and config.protocol == "supervised" and config.load_state:
        raise ValueError(f"{flags} starts from scratch; leave out --load_state, or use --protocol finetune")
    if config.mode == "train" and config.protocol == "finetune" and config.load_state == RANDOM:
        raise ValueError(f"{flags} --load_state {RANDOM} is --protocol supervised; use that")


def check_encoder_flags(config: ClassifyConfig) -> None:
    """Raise ValueError if flags do not fit the encoders: untrained ones, or those of a checkpoint."""
    external = [path for path in config.encoder_checkpoints.values() if is_state_dict_file(path)]
    if config.fusion_layer == 3 and external:
        raise ValueError(f"{external[0]} holds no projection head; use --fusion_layer 0")
    if config.fusion_layer == 3 and not config.has_all_checkpoints:
        raise ValueError("untrained encoders have no projection heads; use --fusion_layer 0")
    default = EncoderConfig()
    if (
        config.encoders.ehr_encoder != default.ehr_encoder
        and "ehr" not in FUSIONS[config.fusion].encoder_names()
    ):
        raise ValueError(f"--fusion {config.fusion} has no record encoder; leave out --ehr_encoder")
    for modality, names in FIELDS_OF_ENCODER.items():
        path = config.encoder_checkpoints.get(modality)
        if (config.allows_untrained_encoders and path is None) or (path and is_state_dict_file(path)):
            continue
        for name in names:
            if getattr(config.encoders, name) != getattr(default, name):
                raise ValueError(f"the checkpoint of an encoder stores its architecture; leave out --{name}")
    warn_of_unused_shapes(config)


def warn_of_unused_shapes(config: ClassifyConfig) -> None:
    """Warn if flags shape an encoder that the fusion lacks; all runs of a table may have them in common."""
    default, has = EncoderConfig(), FUSIONS[config.fusion].encoder_names()
    for modality in [name for name in FIELDS_OF_ENCODER if name not in has]:
        names = FIELDS_OF_ENCODER[modality]
        given = [name for name in names if getattr(config.encoders, name) != getattr(default, name)]
        if given:
            flags = " and ".join(f"--{name}" for name in given)
            kind = "record" if modality == "ehr" else "image"
            logger.warning(f"--fusion {config.fusion} has no {kind} encoder to shape; leave out {flags}")


def check_encoder_checkpoints(config: ClassifyConfig) -> None:
    """Raise ValueError if a checkpoint of a single encoder is not used, or is missing."""
    fusion = FUSIONS[config.fusion]
    loads_encoders = config.mode == "train" and config.load_state != RANDOM
    for flag in ("load_state", "load_state_ehr", "load_state_cxr"):
        if is_state_dict_file(getattr(config, flag)):
            raise ValueError(
                f"--{flag} {getattr(config, flag)}: takes a checkpoint of this project (.ckpt); give weights "
                "of an image encoder from elsewhere with --cxr_weights"
            )
    check_weights_file(config.cxr_weights, "give a checkpoint of this project with --load_state_cxr")
    if config.cxr_weights and config.load_state_cxr:
        raise ValueError("--cxr_weights and --load_state_cxr both start the image encoder; leave out one")
    for flag in ("load_state_ehr", "load_state_cxr", "cxr_weights"):
        is_used = loads_encoders and ("ehr" if flag == "load_state_ehr" else "cxr") in fusion.encoder_names()
        if getattr(config, flag) and not is_used:
            raise ValueError(
                f"--mode {config.mode} --fusion {config.fusion} does not use --{flag}; leave it out"
            )
    if fusion.freezes_encoders and config.mode == "train" and not config.has_all_checkpoints:
        raise ValueError(
            f"--fusion {config.fusion} freezes its encoders; give trained ones with --load_state_ehr and "
            "--load_state_cxr"
        )


def check_modalities(fusion: str, data_pairs: str) -> None:
    """Raise ValueError if samples of --data_pairs do not have the modalities that a fusion needs."""
    for modality, name in (("ehr", "EHR data"), ("cxr", "X-rays")):
        if modality in FUSIONS[fusion].modalities and not getattr(SAMPLE_SELECTIONS[data_pairs], modality):
            raise ValueError(
                f"--data_pairs {data_pairs} has no {name}, which --fusion {fusion} needs; use --data_pairs "
                "paired"
            )
