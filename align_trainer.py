"""Pretrains the EHR and X-ray encoders with ALIGN: contrastive, with a learnt temperature and noisy pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.batches import DataConfig, check_pairs, load_batches
from datasets.store import Store
from models.embeddings import SHOWN
from models.encoders import EncoderConfig, build_encoders
from models.heads import build_heads
from models.losses import Denominator
from models.objectives.align import ALIGN
from models.pretraining import Pretraining, pretraining_checkpoint
from tasks import TASKS
from training.loop import fit
from training.optim import OptimConfig
from training.provenance import training_subjects
from utils import distributed
from utils.cli import run_cli
from utils.run import RunConfig, start_run

PUBLISHED_ENCODERS = EncoderConfig(ehr_dim=256)
PUBLISHED = OptimConfig("adamw", lr=6.026e-5, weight_decay=1e-4, epochs=300, schedule="cosine")


@dataclass(frozen=True)
class AlignConfig:
    """Pretrain both encoders on pairs of a stay's record and its X-ray."""

    task: Literal[tuple(TASKS)] = "phenotyping"
    """Task whose samples give the pairs; its labels are not looked at."""
    temperature: float = 0.07
    """Divisor of the cosines that the training starts from, 0.01 or above."""
    denominator: Denominator = "decoupled"
    """decoupled leaves the positive out of the denominator (published), full keeps it (NT-Xent)."""
    swap: float = 0.2
    """Noise: in training, two blocks of 0.8 to 1 times this share of a batch exchange their EHR rows; 0 swaps
    none, 0.2 is the published and the largest."""
    width: int = 0
    """0: the heads are one linear layer to 512 (published); else they have layers of 128 x width units."""
    encoders: EncoderConfig = PUBLISHED_ENCODERS
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = PUBLISHED
    run: RunConfig = field(default_factory=RunConfig)


def main(config: AlignConfig) -> None:
    """Train the encoders; a checkpoint an epoch goes to the run's folder."""
    check_pairs(config.data)
    task, store = TASKS[config.task], Store.open(config.data.store)
    run = start_run(config, "align", store.data_description, store.fingerprint)
    train, val = (
        load_batches(store, task.name, task.labels, task.encode, split, config.data, run.seed, run.process)
        for split in ("train", "val")
    )
    encoders = build_encoders(config.encoders)
    heads = build_heads(encoders, config.width)
    objective = ALIGN(encoders, heads, config.temperature, config.denominator, config.swap)
    made = Pretraining("align", config.encoders, config.width)
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
    run_cli(main, AlignConfig)
