"""A pretraining of both encoders, from its settings to its checkpoints."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from datasets.batches import check_batch_size, load_batches
from datasets.data_config import split_label
from datasets.other_splits import open_store
from datasets.store import Store
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
    weights_label,
)
from models.heads import build_heads
from models.objectives import ObjectiveSettings
from models.pretraining import Pretraining, pretraining_checkpoint
from tasks import get_task
from training.epoch_table import best_epochs
from training.loop import fit
from training.pretrain import PretrainConfig, check
from training.provenance import lineage
from utils import checkpoint, distributed
from utils.lock import releasing_locks
from utils.log import logger
from utils.run import start_run
from utils.state_dict import EXTERNAL

VAL_CURE = "use more stays, a larger --batch_size, or choose the epoch by --monitor train_loss"


@releasing_locks()
def pretrain(config: PretrainConfig) -> None:
    """Pretrain both encoders with an objective; a checkpoint of each epoch goes to the run's folder."""
    settings = check(config)
    task, store = get_task(config.task), open_store(config.data)
    encoder_config = with_shape(config.encoders, settings.published_ehr_dim)
    check_has_xrays(store)
    origins = {"cxr_weights": checkpoint.read_origin(Path(config.cxr_weights))} if config.cxr_weights else {}
    run = start_run(
        config,
        default_name(config, settings.name),
        store.data_description,
        store.fingerprint_of(task.name),
        origins,
    )
    with run.getting_ready():
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
        can_be_extended=config.selection.keep != "best",
        leaves_best=config.selection.leaves_best,
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


def check_has_xrays(store: Store) -> None:
    """Raise ValueError if a store has no X-ray, and thus no pair."""
    if not len(store.cxr):
        raise ValueError(
            f"{store.folder} has no X-ray, and a pretraining needs pairs of a record and an X-ray; extract "
            "with --mimic_cxr, the folder of MIMIC-CXR-JPG or of synthetic X-rays (python -m "
            "datasets.synthetic --out DIR --for_stays MIMIC_IV)"
        )


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
