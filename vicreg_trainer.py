"""Pretrains the EHR and X-ray encoders with VICReg across modalities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.batches import DataConfig, check_pairs, load_batches
from datasets.store import Store
from models.embeddings import SHOWN
from models.encoders import EncoderConfig, build_encoders
from models.heads import build_heads
from models.objectives.vicreg import VICReg
from models.pretraining import Pretraining, pretraining_checkpoint
from tasks import TASKS
from training.loop import fit
from training.optim import OptimConfig
from training.provenance import training_subjects
from utils import distributed
from utils.cli import run_cli
from utils.run import RunConfig, start_run

PUBLISHED = OptimConfig("lars", lr=0.5989, weight_decay=1e-4, epochs=300, warmup_epochs=10, schedule="cosine")


@dataclass(frozen=True)
class VICRegConfig:
    """Pretrain both encoders on pairs of a stay's record and its X-ray."""

    task: Literal[tuple(TASKS)] = "phenotyping"
    """Task whose samples give the pairs; its labels are not looked at."""
    invariance: float = 25.0
    """Weight of the distance between partners."""
    variance: float = 25.0
    """Weight of the features' lack of variance over a batch."""
    covariance: float = 1.0
    """Weight of the covariance between features."""
    width: int = 1
    """The projection heads have layers of 128 x width units; 0: one linear layer to 512, as in ALIGN."""
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = PUBLISHED
    run: RunConfig = field(default_factory=RunConfig)


def main(config: VICRegConfig) -> None:
    """Train the encoders; a checkpoint an epoch goes to the run's folder."""
    check_pairs(config.data)
    task, store = TASKS[config.task], Store.open(config.data.store)
    run = start_run(config, "vicreg", store.data_description, store.fingerprint)
    train, val = (
        load_batches(store, task.name, task.labels, task.encode, split, config.data, run.seed, run.process)
        for split in ("train", "val")
    )
    encoders = build_encoders(config.encoders)
    heads = build_heads(encoders, config.width)
    objective = VICReg(encoders, heads, config.invariance, config.variance, config.covariance)
    made = Pretraining("vicreg", config.encoders, config.width)
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


if __name__ == "__main__":
    run_cli(main, VICRegConfig)
