"""Pretrain both encoders with any objective: `python -m training.pretrain NAME --help`."""

from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache, partial, reduce
from operator import or_
from typing import cast

import numpy as np

from datasets.batches import check_batch_size, load_batches
from datasets.other_splits import open_store
from datasets.samples import DataConfig, check_pairs, split_label
from models.embeddings import COLLAPSE_COLUMNS
from models.encoders import EHR_ENCODERS, EncoderConfig, build_encoders, with_shape
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
from utils import distributed
from utils.cli import run_cli
from utils.config import from_dict, neutral, resumable, to_dict
from utils.lock import releasing_locks
from utils.log import logger
from utils.run import start_run
from utils.run_config import RunConfig

VAL_CURE = "use more stays, a larger --batch_size, or choose the epoch by --monitor train_loss"


@dataclass(frozen=True)
class PretrainConfig:
    """What the configurations of all pretrainings share; see `config_for`."""

    task: TaskName = "phenotyping"
    """Task whose samples give the pairs; its labels are not used."""
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
    other = "" if encoder_config.ehr_encoder == "lstm" else encoder_config.ehr_encoder
    parts = (settings.name, other, task.name, split_label(config.data), f"seed{config.run.seed}")
    name = "-".join(filter(None, parts))
    run = start_run(config, name, store.data_description, store.fingerprint_of(task.name))
    check_batch_size(config.data.batch_size, run.process.world)
    needs = EHR_ENCODERS[encoder_config.ehr_encoder].needs
    train, val = (
        load_batches(store, task, split, config.data, run.seed, run.process, needs)
        for split in ("train", "val")
    )
    check_compares(train.samples.cxr_row, len(train.samples), "train", "use more stays")
    if config.stopping.monitor.startswith("val_"):
        check_compares(val.samples.cxr_row, config.data.batch_size, "validation", VAL_CURE)
    encoders = build_encoders(encoder_config)
    heads = build_heads(encoders, settings.width)
    objective = settings.build(encoders, heads)
    pretraining = Pretraining(settings.name, encoder_config, settings.width)
    known = lineage(store)
    probes = None
    if config.selection.probe:
        from training.epoch_probes import EpochProbes  # with matplotlib, which takes time to import

        probes = EpochProbes(config.selection, config.data, encoder_config, encoders, store, run)
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


def check(config: PretrainConfig) -> ObjectiveSettings:
    """Return the settings of the objective; raise ValueError, naming the flag, if they cannot work."""
    check_pairs(config.data)
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
