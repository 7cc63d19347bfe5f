"""Pretrains the EHR and X-ray encoders with SimCLR across modalities, or with an objective beyond it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from datasets.batches import DataConfig, check_pairs, load_batches
from datasets.store import Store
from models.embeddings import SHOWN
from models.encoders import EncoderConfig, build_encoders
from models.heads import build_heads
from models.losses import Denominator
from models.objectives.clip import CLIP
from models.objectives.pairs import PairObjective
from models.objectives.siglip import SigLIP
from models.objectives.simclr import SimCLR
from models.objectives.tsimclr import TSimCLR
from models.pretraining import Pretraining, pretraining_checkpoint
from tasks import TASKS
from training.loop import fit
from training.optim import OptimConfig
from training.provenance import training_subjects
from utils import distributed
from utils.cli import run_cli
from utils.run import RunConfig, start_run

PUBLISHED = OptimConfig("lars", lr=0.6044, weight_decay=1e-4, epochs=300, warmup_epochs=10, schedule="cosine")

Modules = Mapping[str, nn.Module]
OBJECTIVES: dict[str, Callable[[Modules, Modules, SimCLRConfig], PairObjective]] = {
    "simclr": lambda encoders, heads, c: SimCLR(encoders, heads, c.temperature, c.denominator),
    "tsimclr": lambda encoders, heads, c: TSimCLR(encoders, heads, c.temperature, c.denominator, c.k),
    "clip": lambda encoders, heads, c: CLIP(encoders, heads, c.temperature),
    "siglip": lambda encoders, heads, c: SigLIP(encoders, heads, c.temperature),
}


@dataclass(frozen=True)
class SimCLRConfig:
    """Pretrain both encoders on pairs of a stay's record and its X-ray."""

    task: Literal[tuple(TASKS)] = "phenotyping"
    """Task whose samples give the pairs; its labels are not looked at."""
    objective: Literal[tuple(OBJECTIVES)] = "simclr"
    """simclr is the published; tsimclr weights pairs by the days between image and prediction; clip and
    siglip learn their temperature."""
    temperature: float = 0.1
    """Divisor of the cosines, above 0; clip and siglip start from it, at 0.01 or above. Published: 0.1, for
    clip 0.07."""
    denominator: Denominator = "decoupled"
    """Of simclr and tsimclr: decoupled leaves the positive out (published), full keeps it (NT-Xent)."""
    k: float = 2.0
    """Of tsimclr: a pair's weight is k - exp(-k |days|), 1 or more."""
    width: int = 1
    """The projection heads have layers of 128 x width units; 0: one linear layer to 512, as in ALIGN."""
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = PUBLISHED
    run: RunConfig = field(default_factory=RunConfig)


def main(config: SimCLRConfig) -> None:
    """Train the encoders; a checkpoint an epoch goes to the run's folder."""
    check(config)
    task, store = TASKS[config.task], Store.open(config.data.store)
    run = start_run(config, config.objective, store.data_description, store.fingerprint)
    train, val = (
        load_batches(store, task.name, task.labels, task.encode, split, config.data, run.seed, run.process)
        for split in ("train", "val")
    )
    encoders = build_encoders(config.encoders)
    heads = build_heads(encoders, config.width)
    objective = OBJECTIVES[config.objective](encoders, heads, config)
    made = Pretraining(config.objective, config.encoders, config.width)
    subjects = training_subjects(store)
    pairs = (train.samples.cxr_row >= 0).sum()
    run.info(f"{pairs} pairs to learn from, {store.data_description}")
    fit(
        objective,
        train,
        val,
        config.optim,
        run,
        save=lambda: pretraining_checkpoint(made, encoders, heads) | {"subjects": subjects},
        keep_every_epoch=True,
        show=SHOWN,
    )
    distributed.shutdown()


def check(config: SimCLRConfig) -> None:
    """ValueError, with the cure, for settings under which nothing can be learnt or that would do nothing."""
    check_pairs(config.data)
    asked, default = f"--objective {config.objective}", SimCLRConfig()
    learns = config.objective in ("clip", "siglip")
    rules = {
        f"{asked} learns its temperature, for which the rates of lars are too coarse; add --optimizer adamw "
        "--lr 1e-4": learns and config.optim.optimizer == "lars",
        f"{asked} has a denominator of its own; leave out --denominator": learns
        and config.denominator != default.denominator,
        f"{asked} does not weight pairs; leave out --k, or use --objective tsimclr": config.objective
        != "tsimclr"
        and config.k != default.k,
    }
    for message, broken in rules.items():
        if broken:
            raise ValueError(message)


if __name__ == "__main__":
    run_cli(main, SimCLRConfig)
