"""Pretrains the EHR and X-ray encoders with SimCLR across modalities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.batches import Batches, DataConfig, load_samples
from datasets.store import Store
from models.encoders import EncoderConfig, build_encoders
from models.heads import build_heads
from models.losses import Denominator
from models.objectives.simclr import SimCLR
from models.pretraining import Pretraining, pretraining_checkpoint
from tasks import TASKS
from tasks.report import made_of
from utils import distributed
from utils.loop import fit
from utils.optim import OptimConfig
from utils.run import Run, RunConfig, start_run
from utils.script import run_script

PUBLISHED = OptimConfig("lars", lr=0.6044, weight_decay=1e-4, epochs=300, warmup_epochs=10, schedule="cosine")


@dataclass(frozen=True)
class SimCLRConfig:
    """Pretrain both encoders on pairs of a stay's record and its X-ray."""

    task: Literal[tuple(TASKS)] = "phenotyping"
    """Task whose samples give the pairs; its labels are not looked at."""
    temperature: float = 0.1
    """Divisor of the cosines, above 0."""
    denominator: Denominator = "decoupled"
    """decoupled leaves the positive out of the denominator (published), full keeps it (NT-Xent)."""
    width: int = 1
    """The projection heads have layers of 128 x width units."""
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = PUBLISHED
    run: RunConfig = field(default_factory=RunConfig)


def main(config: SimCLRConfig) -> None:
    """Train the encoders; a checkpoint an epoch goes to the run's folder."""
    check(config)
    run = start_run(config, "simclr")
    store = Store.open(config.data.store)
    train, val = (pair_batches(config, store, split, run) for split in ("train", "val"))
    encoders = build_encoders(config.encoders)
    heads = build_heads(encoders, config.width)
    objective = SimCLR(encoders, heads, config.temperature, config.denominator)
    made = Pretraining("simclr", config.encoders, config.width)
    pairs = (train.samples.cxr_row >= 0).sum()
    run.say(f"{pairs} pairs to learn from, {made_of(store.manifest)}")
    fit(
        objective,
        train,
        val,
        config.optim,
        run,
        save=lambda: pretraining_checkpoint(made, encoders, heads),
        keep_every_epoch=True,
    )
    distributed.shutdown()


def check(config: SimCLRConfig) -> None:
    """ValueError, with the cure, for settings under which nothing can be learnt."""
    if config.data.data_pairs not in ("paired", "partial"):
        raise ValueError(f"--data_pairs {config.data.data_pairs} holds no pairs; use --data_pairs paired")
    if config.data.batch_size < 2:
        raise ValueError(f"--batch_size {config.data.batch_size}: pairs are told from others; use 2 or more")


def pair_batches(config: SimCLRConfig, store: Store, split: str, run: Run) -> Batches:
    """Batches of a split's pairs, images seen by random views in training alone."""
    task, here = TASKS[config.task], run.process
    samples = load_samples(store, task.name, task.labels, task.encode, split, config.data, run.seed)
    return Batches(
        store,
        samples,
        config.data,
        seed=run.seed,
        device=here.device,
        train=split == "train",
        rank=here.rank,
        world=here.world,
    )


if __name__ == "__main__":
    run_script(main, SimCLRConfig)
