"""Pretrain both encoders with any objective: `python -m training.pretrain NAME --help`."""

from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cache, partial, reduce
from operator import or_
from pathlib import Path
from typing import cast

import numpy as np

from datasets.batches import check_batch_size, load_batches
from datasets.other_splits import open_store
from datasets.samples import DataConfig, check_pairs, split_label
from models.embeddings import COLLAPSE_COLUMNS
from models.encoders import (
    EHR_ENCODERS,
    Encoder,
    EncoderConfig,
    build_encoders,
    crop_of,
    is_torchvision,
    start_external,
    with_shape,
)
from models.encoders.families import (
    FAMILIES,
    IMAGENET_WEIGHTS,
    RANDOM_WEIGHTS,
    check_image_size,
    weights_label,
)
from models.heads import build_heads
from models.objectives import OBJECTIVES, ObjectiveSettings
from models.pretraining import Pretraining, pretraining_checkpoint
from tasks import TaskName, get_task
from training.early_stopping import StoppingConfig
from training.epoch_table import best_epochs
from training.loop import fit
from training.optim import OptimConfig
from training.provenance import lineage
from training.selection import SelectionConfig
from utils import checkpoint, distributed
from utils.cli import run_cli
from utils.config import from_dict, neutral, resumable, to_dict
from utils.lock import releasing_locks
from utils.log import logger
from utils.run import start_run
from utils.run_config import RunConfig
from utils.state_dict import EXTERNAL, check_weights_file

VAL_CURE = "use more stays, a larger --batch_size, or choose the epoch by --monitor train_loss"


@dataclass(frozen=True)
class PretrainConfig:
    """What the configurations of all pretrainings share; see `config_for`."""

    task: TaskName = "phenotyping"
    """Task whose samples give the pairs; its labels are not used."""
    cxr_weights: str = neutral("")
    """File of weights of --vision_backbone that were trained elsewhere, from which the image encoder starts:
    a state dict (.pth, .pt, .bin) or .safetensors. Every tensor must fit, and nothing is unpickled."""
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = resumable(OptimConfig())
    stopping: StoppingConfig = resumable(StoppingConfig())
    selection: SelectionConfig = neutral(SelectionConfig())
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        get_task(self.task)

    def objective_settings(self) -> ObjectiveSettings:
        """Return the settings of the objective, which the classes made by `config_for` inherit."""
        assert isinstance(self, ObjectiveSettings), "made by config_for"
        return self


@cache
def config_for(objective: str) -> type[PretrainConfig]:
    """Return the configuration class of an objective: its flags, with the published values as defaults.

    >>> config = config_for("vicreg")()
    >>> config.variance, config.optim.optimizer
    (25.0, 'lars')
    """
    settings = OBJECTIVES[objective]
    defaults = [("optim", OptimConfig, resumable(published_optim(objective)))]
    docstring = f"Pretrain both encoders with {settings.title} on pairs of a stay's record and its X-ray."
    config = make_dataclass(
        objective,  # a subcommand's name
        defaults,
        bases=(settings, PretrainConfig),
        namespace={"__doc__": docstring, "__module__": __name__},
        frozen=True,
    )
    return cast(type[PretrainConfig], config)


def published_optim(objective: str) -> OptimConfig:
    """Return the published settings of an objective's optimizer."""
    return from_dict(OptimConfig, to_dict(OBJECTIVES[objective].published_optim))


def select_settings(objective: str, config: PretrainConfig) -> ObjectiveSettings:
    """Return one objective's settings from flags of several; ValueError if a flag of another one is set."""
    flags = {item.name for settings in OBJECTIVES.values() for item in fields(settings)}
    names = {item.name for item in fields(OBJECTIVES[objective])}
    for item in fields(config):
        if item.name in flags - names and getattr(config, item.name) != item.default:
            raise ValueError(f"--objective {objective} has no setting --{item.name}; leave it out")
    return from_dict(OBJECTIVES[objective], {name: getattr(config, name) for name in names})


@releasing_locks()
def pretrain(config: PretrainConfig) -> None:
    """Pretrain both encoders with an objective; a checkpoint of each epoch goes to the run's folder."""
    settings = check(config)
    task, store = get_task(config.task), open_store(config.data)
    encoder_config = with_shape(config.encoders, settings.published_ehr_dim)
    origins = {"cxr_weights": checkpoint.read_origin(Path(config.cxr_weights))} if config.cxr_weights else {}
    run = start_run(
        config,
        default_name(config, settings.name),
        store.data_description,
        store.fingerprint_of(task.name),
        origins,
    )
    check_batch_size(config.data.batch_size, run.process.world)
    encoders, pretraining = start_encoders(config, settings, encoder_config)
    needs, crop = EHR_ENCODERS[encoder_config.ehr_encoder].needs, crop_of(encoders["cxr"])
    train, val = (
        load_batches(store, task, split, config.data, run.seed, run.process, needs, crop)
        for split in ("train", "val")
    )
    check_compares(train.samples.cxr_row, len(train.samples), "train", "use more stays")
    if config.stopping.monitor.startswith("val_"):
        check_compares(val.samples.cxr_row, config.data.batch_size, "validation", VAL_CURE)
    heads = build_heads(encoders, settings.width)
    objective = settings.build(encoders, heads)
    known = lineage(store, map(Path, filter(None, [config.cxr_weights])))
    probes = None
    if config.selection.probe:
        from training.epoch_probes import EpochProbes  # with matplotlib, which takes time to import

        probes = EpochProbes(config.selection, config.data, pretraining.encoders, encoders, store, run)
    logger.info(f"{(train.samples.cxr_row >= 0).sum()} training pairs, {store.data_description}")
    fit(
        objective,
        train,
        val,
        config.optim,
        config.stopping,
        run,
        save=lambda: {**pretraining_checkpoint(pretraining, encoders, heads), **known},
        score=probes.score if probes else None,
        keep_epochs=config.selection.keep_epochs(partial(best_epochs, run.folder)),
        show=(*COLLAPSE_COLUMNS, *(probes.columns if probes else ())),
    )
    if probes:
        probes.report()
    distributed.shutdown()


def default_name(config: PretrainConfig, objective: str) -> str:
    """Return the name of a run without --name: objective, encoders that are not the usual, task, and seed."""
    encoders = config.encoders
    record_encoder = "" if encoders.ehr_encoder == "lstm" else encoders.ehr_encoder
    weights = encoders.vision_backbone if encoders.vision_backbone in FAMILIES else EXTERNAL
    parts = (objective, record_encoder, weights if config.cxr_weights else "", config.task)
    return "-".join(filter(None, (*parts, split_label(config.data), f"seed{config.run.seed}")))


def start_encoders(
    config: PretrainConfig, settings: ObjectiveSettings, shape: EncoderConfig
) -> tuple[dict[str, Encoder], Pretraining]:
    """Build the encoders, the image encoder from --cxr_weights if that is given; return also how."""
    if not config.cxr_weights:
        weights = IMAGENET_WEIGHTS if shape.pretrained else RANDOM_WEIGHTS
        return build_encoders(shape), Pretraining(settings.name, shape, settings.width, weights)
    backbone = shape.vision_backbone
    shape = replace(shape, pretrained=is_torchvision(backbone))  # images are normalised as ImageNet was
    encoders = build_encoders(shape, download=False)
    start_external(encoders["cxr"], backbone, config.cxr_weights)
    return encoders, Pretraining(settings.name, shape, settings.width, weights_label(backbone))


def check(config: PretrainConfig) -> ObjectiveSettings:
    """Return the settings of the objective; raise ValueError, naming the flag, if they cannot work."""
    check_pairs(config.data)
    check_weights_file(config.cxr_weights, "a pretraining starts from no checkpoint of this project")
    check_image_size(config.encoders.vision_backbone, config.data.image_size)
    settings = config.objective_settings()
    settings.check(config.optim.optimizer)
    return settings


def check_compares(cxr_row: np.ndarray, batch_size: int, split: str, cure: str) -> None:
    """Raise ValueError unless some batch has two pairs: the loss of one is 0, whatever the encoders are.

    `cxr_row` [n] is -1 for the samples without an X-ray, which are no pairs.
    """
    pairs = np.flatnonzero(cxr_row >= 0)
    if np.bincount(pairs // batch_size, minlength=1).max() < 2:
        raise ValueError(
            f"the {split} split has {len(pairs)} pairs of a record and an X-ray, and no batch has two: a "
            f"pair is compared with the others of its batch, and the loss would be 0 in every epoch; {cure}"
        )


if __name__ == "__main__":
    run_cli(pretrain, reduce(or_, map(config_for, OBJECTIVES)))
