"""Pretrain both encoders with any objective: `python -m training.pretrain NAME --help`."""

from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache, reduce
from operator import or_
from typing import cast

from datasets.data_config import DataConfig, check_pairs
from models.encoders import EncoderConfig
from models.encoders.families import check_image_size
from models.objectives import OBJECTIVES, ObjectiveSettings
from tasks import TaskName, get_task
from training.early_stopping import StoppingConfig
from training.optim import OptimConfig, warn_of_unused_flags
from training.selection import SelectionConfig
from utils.cli import run_cli
from utils.config import from_dict, neutral, resumable, to_dict
from utils.run_config import RunConfig
from utils.state_dict import check_weights_file

MAIN = "training.pretraining:pretrain"


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


def check(config: PretrainConfig) -> ObjectiveSettings:
    """Return the settings of the objective; raise ValueError, naming the flag, if they cannot work."""
    from models.encoders.vision import check_backbone  # with PyTorch, which --help does not need

    check_pairs(config.data)
    check_weights_file(config.cxr_weights, "a pretraining starts from no checkpoint of this project")
    check_backbone(config.encoders.vision_backbone)
    check_image_size(config.encoders.vision_backbone, config.data.image_size)
    settings = config.objective_settings()
    settings.check(config.optim.optimizer)
    warn_of_unused_flags(config.optim)
    return settings


if __name__ == "__main__":
    run_cli(MAIN, reduce(or_, map(config_for, OBJECTIVES)))
