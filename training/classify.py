"""Train and evaluate classifiers: supervised, fine-tuned, or linear on the features of frozen encoders."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from datasets.batches import Batches, By, check_batch_size
from datasets.data_config import split_label
from datasets.features import LOADS, FeatureBatches, UniqueInputs
from datasets.few_labels import take_fraction
from datasets.other_splits import open_store
from datasets.samples import Samples, is_hourly, load_samples
from datasets.schema import SHARES_STAYS, SPLITS, Batch, FeatureBatch, ImageFeatures, RecordNeeds
from datasets.store import Store
from evaluation import results
from evaluation.calibration import calibrate
from evaluation.predictions import EMBEDDINGS, write_embeddings
from evaluation.scoring import (
    ScoringContext,
    check_learnable,
    class_means,
    has_scorable_label,
    mean_scores,
    monitor_score,
    write_report,
)
from evaluation.subgroups import parse_subgroups, sample_subgroups
from evaluation.summaries import RESAMPLE_SEED
from models.classifier import (
    Classifier,
    ClassifierConfig,
    classifier_checkpoint,
    load_classifier,
    read_classifier,
    start_classifier,
)
from models.encoders import Encoder, crop_of, record_needs
from models.encoders.families import FAMILIES
from models.fusion import FUSIONS, Fusion, FusionConfig, LinearFusion
from models.linear_probe import LinearProbe
from tasks import TASKS
from tasks.task import Task
from training import batches as batch_protocol
from training.classify_config import RANDOM, ClassifierOptim, ClassifyConfig, check_config, classifier_config
from training.early_stopping import StoppingConfig
from training.feature_cache import FeatureCache, cached_features
from training.features import SharedFeatures
from training.loop import FitResult, fit
from training.predict import Predictions, predict
from training.probe import train_probe
from training.provenance import check_no_leakage, check_no_more_labels, lineage
from training.select_epoch_config import ProbeConfig
from utils import checkpoint, distributed
from utils.config import decisive_settings, digest
from utils.lock import releasing_locks
from utils.log import logger
from utils.run import Run, start_run
from utils.state_dict import EXTERNAL

AfterEpoch = Callable[[int, float], None]
PROBE_BATCH = 512  # samples per step of the probe with which a fine-tuning begins
ClassifierBatches = batch_protocol.Batches[Batch | FeatureBatch]


@dataclass(frozen=True)
class Experiment:
    """A run that was opened: its settings, task, store and folder; and when it started (time.monotonic)."""

    config: ClassifyConfig
    task: Task
    store: Store
    run: Run
    start: float

    def load_samples(self, split: str) -> Samples:
        """Load the samples of a split."""
        return load_samples(self.store, self.task, split, self.config.data, self.run.seed)

    def load_labeled(self, fraction: float, seed: int) -> Samples:
        """Load the training samples whose labels a classifier learns from, as its seed draws them."""
        samples = self.load_samples("train")
        if fraction == 1:
            return samples
        labeled = take_fraction(samples, fraction, seed)
        needed = labeled.subjects - max(1, round(fraction * labeled.of))
        more = f", {needed} more than asked, so that no class vanishes" if needed > 0 else ""
        logger.info(f"labels of {labeled.subjects} of {labeled.of} training subjects{more}")
        return labeled.samples


class Trained(NamedTuple):
    """A training that ended: the classifier, the part of it that was trained, and on what."""

    classifier: Classifier
    model: Classifier
    built: ClassifierConfig
    samples: Mapping[str, Samples]
    batches: Mapping[str, ClassifierBatches]
    result: FitResult


class ValidationPass:
    """The loss and the score of the validation split in one pass of the network."""

    def __init__(self, model: Classifier, task: Task, samples: Samples) -> None:
        self.model = model
        self.task = task
        self.samples = samples
        self.predictions = Predictions()

    def evaluate(self, batch: Batch | FeatureBatch) -> Mapping[str, Tensor]:
        """Return the terms of a batch's loss, and keep the probabilities of its samples."""
        terms, probability = self.model.evaluate(batch)
        self.predictions.add(batch.row, probability)
        return terms

    def score(self, epoch: int) -> dict[str, float]:
        """Return the mean scores of all samples of an epoch, which are those since the last call."""
        probability = self.predictions.in_order()
        self.predictions = Predictions()
        return mean_scores(self.task, self.samples.labels, probability, self.samples.subject_id)


@releasing_locks()
def classify(config: ClassifyConfig) -> None:
    """Train and test a classifier, or evaluate one, as --mode says."""
    check_config(config)
    if config.mode == "train":
        train(config)
    else:
        evaluate(config)
    distributed.shutdown()


def train(config: ClassifyConfig) -> None:
    """Train a classifier, and report its best validation epoch on the validation and the test split."""
    experiment = open_experiment(config)
    trained = fit_classifier(experiment, SPLITS)
    model, built, samples, epoch = trained.model, trained.built, trained.samples, trained.result.best_epoch
    best = experiment.run.folder / "best.ckpt"
    load_classifier(model, checkpoint.load(best))
    if model is not trained.classifier:
        save_whole_classifier(best, trained.classifier, built)
    probability = {split: predict_probabilities(model, trained.batches[split]) for split in ("val", "test")}
    report(experiment, built, epoch, samples, "val", probability["val"])
    calibrated = {}
    if experiment.task.kind != "ordinal":
        calibrated = calibrate(samples["val"].labels, probability["val"], probability["test"])
    report(experiment, built, epoch, samples, "test", probability["test"], calibrated)


@releasing_locks()
def validate(config: ClassifyConfig, after_epoch: AfterEpoch) -> Trained:
    """Train a classifier without reading the test split; `after_epoch` may end the training by an error."""
    check_config(config)
    experiment = open_experiment(config, without_test=True)
    try:
        return fit_classifier(experiment, ("train", "val"), after_epoch)
    finally:
        experiment.run.close()


def fit_classifier(
    experiment: Experiment, splits: Sequence[str], after_epoch: AfterEpoch | None = None
) -> Trained:
    """Train a classifier on the train split; its best epoch is that of the best validation score.

    `splits` are those to load; `after_epoch` gets the number of each epoch, from 1, and its monitor.
    """
    config = experiment.config
    sources = config.encoder_checkpoints
    paths = list(map(Path, dict.fromkeys(sources.values())))
    with experiment.run.getting_ready():
        known = lineage(experiment.store, paths)
        check_no_more_labels(paths, config.label_fraction, config.run.seed)
        classifier, built = start_classifier(classifier_config(config), sources)
        samples = {
            "train": experiment.load_labeled(config.label_fraction, config.run.seed),
            **{split: experiment.load_samples(split) for split in splits if split != "train"},
        }
        if config.start.head_start == "probe" and not is_resumed(experiment.run):
            start_from_probe(experiment, classifier, samples)
        model, batches = prepare(experiment, classifier, samples)
        log_single_class_labels(experiment, samples)
        monitor, mode = selection_metric(experiment.task, samples["val"])
    validation = ValidationPass(model, experiment.task, samples["val"])

    def score(epoch: int) -> dict[str, float]:
        scores = validation.score(epoch)
        if after_epoch is not None and epoch:
            after_epoch(epoch, scores.get(monitor, np.nan))
        return scores

    result = fit(
        model,
        batches["train"],
        batches["val"],
        config.optim,
        StoppingConfig(config.stopping.patience, config.stopping.min_delta, monitor, mode),
        experiment.run,
        evaluate=validation.evaluate,
        score=score,
        save=lambda: {**classifier_checkpoint(model, built), **known},
        lr_scales=lr_scales(model, config.optim),
        rates_start=config.start.head_start == "probe",
    )
    return Trained(classifier, model, built, samples, batches, result)


def evaluate(config: ClassifyConfig) -> None:
    """Report the classifier in --load_state on the test split."""
    experiment = open_experiment(config)
    with experiment.run.getting_ready():
        check_no_leakage(experiment.store, Path(config.load_state))
        classifier, built, epoch = load_trained(config)
        # The report of an ordinal task also needs the mean label of each class in the train split.
        samples = {"test": experiment.load_samples("test")}
        if experiment.task.kind == "ordinal":
            seed = checkpoint.read_origin(Path(config.load_state)).seed or 0
            samples["train"] = experiment.load_labeled(built.label_fraction, seed)
        model, batches = prepare(experiment, classifier, {"test": samples["test"]})
    report(experiment, built, epoch, samples, "test", predict_probabilities(model, batches["test"]))


def open_experiment(config: ClassifyConfig, without_test: bool = False) -> Experiment:
    """Open the store, and start a run."""
    start = time.monotonic()
    store = open_store(config.data)  # first, so that a wrong --store does not leave a run folder
    store = replace(store, without_test=without_test)
    paths = config.encoder_checkpoints
    known = {path: checkpoint.read_origin(Path(path)) for path in dict.fromkeys(paths.values())}
    origins = {f"load_state_{modality}": known[path] for modality, path in paths.items()}
    run = start_run(
        config,
        default_name(config, origins.values()),
        store.data_description,
        store.fingerprint_of(config.task),
        origins,
        evaluation_settings(config) if config.mode == "eval" else None,
    )
    with run.getting_ready():
        check_batch_size(config.data.batch_size, run.process.world)
        results_file = config.results_dir / f"{config.task}.csv"
        distributed.raise_together(lambda: results.append(results_file, ()))
    return Experiment(config, TASKS[config.task], store, run, start)


def default_name(config: ClassifyConfig, sources: Collection[checkpoint.Origin]) -> str:
    """Return the name of a run without --name: task, protocol, fusion, objectives of its encoders, and seed.

    Before the objectives stands the record encoder, or that of a source, if it is no LSTM. Before the seed
    stand the splits, if they are not the store's, and the --label_fraction, if it is not 1. An evaluation is
    called after the folder of the classifier, and after its file, if that is not best.ckpt.
    """
    if config.mode == "eval":
        path = Path(config.load_state).resolve()
        return "-".join([path.parent.name, *([] if path.stem == "best" else [path.stem]), "eval"])
    backbone = config.encoders.vision_backbone
    own = backbone if backbone in FAMILIES else EXTERNAL  # weights from elsewhere
    named = [own if source.objective == EXTERNAL else source.objective for source in sources]
    objectives = [RANDOM] if config.load_state == RANDOM else named
    others = "+".join(name for name in dict.fromkeys(objectives) if name != config.protocol)
    record_encoders = (config.encoders.ehr_encoder, *(source.ehr_encoder for source in sources))
    encoder = next((name for name in record_encoders if name != "lstm"), "")
    labels = "" if config.label_fraction == 1 else f"labels{config.label_fraction:g}"
    split = split_label(config.data)
    ends = (split, labels, f"seed{config.run.seed}")
    parts = (config.task, config.protocol, config.fusion, encoder, others, *ends)
    return "-".join(filter(None, parts))


def evaluation_settings(config: ClassifyConfig) -> dict[str, object]:
    """Return the settings that decide the scores of an evaluation; "classifier" names those of its training.

    So evaluations are averaged only over classifiers that differ in their seed alone.
    """
    settings = decisive_settings(config)
    own = {path: value for path, value in settings.items() if path == "task" or path.startswith("data.")}
    return own | {"classifier": checkpoint.read_origin(Path(config.load_state)).settings}


def load_trained(config: ClassifyConfig) -> tuple[Classifier, ClassifierConfig, int]:
    """Load a classifier, how it was built, and its epoch; ValueError if it was trained with other flags."""
    classifier, built, epoch = read_classifier(Path(config.load_state))
    for name in ("task", "protocol", "fusion", "fusion_layer"):
        if getattr(config, name) != getattr(built, name):
            raise ValueError(
                f"--{name} {getattr(config, name)}: {config.load_state} was trained with --{name} "
                f"{getattr(built, name)}; use that"
            )
    if config.fusion_settings not in (FusionConfig(), built.fusion_settings):
        raise ValueError(f"{config.load_state} was trained with {built.fusion_settings}; leave out its flags")
    return classifier, replace(built, checkpoint=config.load_state), epoch


def prepare(
    experiment: Experiment, classifier: Classifier, samples: Mapping[str, Samples]
) -> tuple[Classifier, Mapping[str, ClassifierBatches]]:
    """Return the model to train (for lineareval its linear layer, on features), and the batches by split."""
    if experiment.config.protocol == "lineareval":
        return prepare_probe(experiment, classifier, samples)
    crop, needs = crop_of(classifier), record_needs(classifier)
    classifier = classifier.to(experiment.run.process.device)
    features = None
    if experiment.config.frozen_views == "central":
        features = frozen_features(experiment, classifier, samples)
    batches = {
        split: read_batches(experiment, part, split == "train", needs, crop, features)
        for split, part in samples.items()
    }
    return classifier, batches


def frozen_features(
    experiment: Experiment, classifier: Classifier, samples: Mapping[str, Samples]
) -> ImageFeatures:
    """Return the features of all X-rays of some samples by the frozen encoder of a classifier."""
    fusion, process = classifier.fusion, experiment.run.process
    assert isinstance(fusion, Fusion), "linear evaluation alone has another module"
    inputs = UniqueInputs(
        experiment.store, samples, "cxr", experiment.config.data, process, crop_of(classifier)
    )
    features = torch.from_numpy(encode_inputs(experiment, fusion, inputs))
    fusion.train()
    return ImageFeatures(inputs.samples.cxr_row, features)


def warn_of_single_stays(samples: Samples, batch_size: int) -> None:
    """Warn if a batch of whole stays is mostly one stay, whose hours and labels are much alike."""
    mean = len(samples) / max(1, len(np.unique(samples.stay_id)))
    if batch_size < mean:
        logger.warning(
            f"--batch_size {batch_size}: a stay has {mean:.0f} samples on average, so that most steps learn "
            f"from one stay, whose labels are alike; a --batch_size of {8 * mean:.0f} has some 8 stays, and "
            "--batch_by sample mixes hours of all, as published, in many times the time"
        )


def read_batches(
    experiment: Experiment,
    samples: Samples,
    train: bool,
    needs: RecordNeeds = SHARES_STAYS,
    crop: float | None = None,
    features: ImageFeatures | None = None,
) -> Batches:
    """Return batches that load only the modalities of the fusion; for training shuffled and augmented."""
    process, config = experiment.run.process, experiment.config
    fusion = FUSIONS[config.fusion]
    data_pairs = LOADS[fusion.modalities]
    # A fusion inside the encoders computes something for each sample; others do so after the encoders alone.
    by: By = "stay" if fusion.intermediate else "input"
    if train:
        hourly = is_hourly(samples)
        by = ("stay" if hourly else "sample") if config.batch_by == "auto" else config.batch_by
        if by == "stay":
            warn_of_single_stays(samples, config.data.batch_size)
    return Batches(
        experiment.store,
        samples,
        replace(
            config.data,
            data_pairs=data_pairs,
            data_ratio=1.0,
            retrieve_cxr="recent",
            drop_cxr=(0.0, 0.0, 0.0),
        ),
        seed=experiment.run.seed,
        device=process.device,
        train=train,
        rank=process.rank,
        world=process.world,
        by=by,
        crop=crop,
        features=features,
        needs=needs,
    )


def prepare_probe(
    experiment: Experiment, classifier: Classifier, samples: Mapping[str, Samples]
) -> tuple[Classifier, dict[str, FeatureBatches]]:
    """Return the linear layer of a classifier, and batches of the features of its frozen encoders."""
    process = experiment.run.process
    fusion = classifier.fusion.to(process.device)
    assert isinstance(fusion, LinearFusion), "ClassifierConfig allows no other for lineareval"
    features = compute_features(experiment, fusion, samples)
    if distributed.is_main() and "test" in samples:
        write_test_embeddings(experiment, features["test"], samples["test"])
    batches = feature_batches(
        features, samples, experiment.config.data.batch_size, experiment.run.seed, process.rank, process.world
    )
    return Classifier(LinearProbe(fusion.linear), experiment.task.kind), batches


def feature_batches(
    features: Mapping[str, Tensor],
    samples: Mapping[str, Samples],
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
) -> dict[str, FeatureBatches]:
    """Return batches of the features of each split."""
    return {
        split: FeatureBatches(
            features[split],
            torch.from_numpy(part.labels).to(features[split].device),
            batch_size,
            seed=seed,
            train=split == "train",
            rank=rank,
            world=world,
        )
        for split, part in samples.items()
    }


def compute_features(
    experiment: Experiment, fusion: LinearFusion, samples: Mapping[str, Samples]
) -> dict[str, Tensor]:
    """Compute the features [n, feature_dim] of each split."""
    process = experiment.run.process
    inputs = {
        modality: UniqueInputs(
            experiment.store,
            samples,
            modality,
            experiment.config.data,
            process,
            crop_of(fusion),
            record_needs(fusion),
        )
        for modality in fusion.modalities
    }
    known = {modality: encode_inputs(experiment, fusion, part) for modality, part in inputs.items()}
    shared = SharedFeatures(fusion, inputs, process.device, known)
    features = {split: shared.features_of(split) for split in samples}
    for split, table in features.items():
        logger.info(f"features of {split}: {table.shape[0]} samples x {table.shape[1]}")
    return features


def encode_inputs(experiment: Experiment, fusion: Fusion, inputs: UniqueInputs) -> np.ndarray:
    """Return the features [n, D] of distinct inputs by their frozen encoder; those that are kept are read."""
    fusion.eval()
    encode = fusion.encode_cxr if inputs.modality == "cxr" else fusion.encode_ehr
    cache = feature_cache(experiment, fusion, inputs)
    if cache is None:
        return predict(encode, inputs.batches)
    return cached_features(cache, encode, inputs)


def feature_cache(experiment: Experiment, fusion: Fusion, inputs: UniqueInputs) -> FeatureCache | None:
    """Return where features by a frozen encoder are kept; None for --no-keep_features and hourly records.

    A record has features for each hour of an hourly task: gigabytes, which are not computed much slower.
    """
    config, store = experiment.config, experiment.store
    if not config.keep_features or (inputs.modality == "ehr" and is_hourly(inputs.samples)):
        return None
    if inputs.modality == "ehr":
        cache = FeatureCache.of_records(store, fusion.ehr_encoder, config.task)
    else:
        cache = FeatureCache.of(store, fusion.cxr_encoder, view_of(experiment, fusion.cxr_encoder))
    cannot = distributed.is_main() and not cache.can_write()
    return None if distributed.any_flag(cannot) else cache


def view_of(experiment: Experiment, encoder: Encoder) -> str:
    """Return how a frozen encoder sees X-rays: their size, shape and crop, such as 224-kept."""
    data, crop = experiment.config.data, crop_of(encoder)
    square = data.squeezes_cxr(experiment.store.manifest.protocol if crop is None else "corrected")
    shown = f"{data.image_size}-{'square' if square else 'kept'}"
    return shown if crop is None else f"{shown}-{crop:g}"


def write_test_embeddings(experiment: Experiment, features: Tensor, test: Samples) -> None:
    """Write the features of the test split, for plots."""
    path = experiment.run.folder / EMBEDDINGS
    names, seed = experiment.task.labels, experiment.run.seed
    write_embeddings(path, features.cpu().numpy(), names, test.labels, seed)


def log_single_class_labels(experiment: Experiment, samples: Mapping[str, Samples]) -> None:
    """Log which labels cannot be trained or choose the best epoch; ValueError if no label can be trained."""
    task = experiment.task
    if problem := check_learnable(task, samples["train"].labels):
        logger.warning(f"{problem}; predictions of them are meaningless")
    if not has_scorable_label(task, samples["val"].labels):
        logger.warning(
            f"every label of {task.name} has only one class in the validation split, so that no score can "
            f"choose the best epoch; the validation loss of {len(samples['val'])} samples chooses it"
        )


def selection_metric(task: Task, val: Samples) -> tuple[str, Literal["min", "max"]]:
    """Return the column of the log that chooses the best epoch, and its mode."""
    return (task.monitor, "max") if has_scorable_label(task, val.labels) else ("val_loss", "min")


def is_resumed(run: Run) -> bool:
    """Return whether a run goes on from its last.ckpt."""
    return run.config.resume and (run.folder / "last.ckpt").is_file()


def start_from_probe(experiment: Experiment, classifier: Classifier, samples: Mapping[str, Samples]) -> None:
    """Set the linear layer of a classifier to a probe of its encoders, on the main process.

    The probe is trained on the train split, and its best epoch chosen on the validation split, as the
    training that follows is; that sends the layer to the other processes.
    """
    config, task, process = experiment.config, experiment.task, experiment.run.process
    fusion = classifier.fusion.to(process.device)
    assert isinstance(fusion, LinearFusion), "check_fine_tuning allows no other"
    learnt = {split: samples[split] for split in ("train", "val")}
    features = compute_features(experiment, fusion, learnt)
    if distributed.is_main():
        batches = feature_batches(features, learnt, PROBE_BATCH, experiment.run.seed)
        labels, can_score = learnt["val"].labels, has_scorable_label(task, learnt["val"].labels)

        def score(probability: Tensor) -> float:
            return monitor_score(task, labels, probability.cpu().numpy()) if can_score else np.nan

        settings = ProbeConfig(config.start.probe_epochs, config.start.probe_lr)
        probability = train_probe(
            task.kind, task.outputs, batches, settings, experiment.run.seed, score, fusion.linear
        )
        logger.info(f"the head begins as a probe; {task.monitor} val {score(probability['val']):.4f}")
    distributed.barrier()


def lr_scales(model: nn.Module, config: ClassifierOptim) -> dict[nn.Parameter, float]:
    """Return the learning rates of weights as multiples of --lr: of the encoders' layers, and all others."""
    scales = dict.fromkeys(model.parameters(), config.head_lr / config.lr if config.head_lr else 1.0)
    for encoder in (module for module in model.modules() if isinstance(module, Encoder)):
        scales |= dict.fromkeys(encoder.parameters(), 1.0)
        for steps, weights in enumerate(reversed(encoder.weights_by_layer()), start=1):
            scales |= dict.fromkeys(weights, config.layer_lr_decay**steps)
    return scales


def save_whole_classifier(path: Path, classifier: Classifier, built: ClassifierConfig) -> None:
    """Replace a checkpoint of the linear layer by one of the whole classifier, on the main process."""
    if distributed.is_main():
        state = checkpoint.load(path)  # it is small, and replaced
        metadata = {name: state[name] for name in ("epoch", "subjects", "split_by", "origin")}
        checkpoint.save(path, classifier_checkpoint(classifier, built) | metadata)


def predict_probabilities(model: Classifier, batches: ClassifierBatches) -> np.ndarray:
    """Return the probabilities [n, outputs] of all samples, in their order."""
    model.eval()
    return predict(model.predict, batches)


def report(
    experiment: Experiment,
    built: ClassifierConfig,
    epoch: int,
    samples: Mapping[str, Samples],
    split: str,
    probability: np.ndarray,
    calibrated: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Write the predictions and the result rows of a split, and print the mean scores.

    `calibrated` holds the probabilities after each kind of calibration.
    """
    if not distributed.is_main():
        return
    config, run, task = experiment.config, experiment.run, experiment.task
    groups = sample_subgroups(experiment.store, samples[split], parse_subgroups(config.subgroups))
    means = class_means(task, samples["train"]) if task.kind == "ordinal" else None
    is_training = config.mode == "train"
    classifier = run.folder / "best.ckpt" if is_training else Path(config.load_state)
    hashes = dict.fromkeys(origin.sha256[: results.HASH_DIGITS] for origin in run.sources.values())
    seed = run.seed if is_training else checkpoint.read_origin(classifier).seed
    run_columns = {
        **{name: getattr(built, name) for name in ("task", "protocol", "fusion", "objective", "checkpoint")},
        "run": run.name,
        "mode": config.mode,
        "checkpoint_hash": " + ".join(hashes),
        "classifier_hash": checkpoint.file_hash(classifier)[: results.HASH_DIGITS],
        "epoch": epoch,
        "seed": run.seed if seed is None else seed,
        "data": experiment.store.data_kind,
        "store": run.store[: results.HASH_DIGITS],
        "data_pairs": config.data.data_pairs,
        "split_by": experiment.store.split_name,
        "label_fraction": built.label_fraction,
        **built.encoder_columns,
        "settings": digest(run.settings),
        "split": split,
        "commit": run.commit,
        "started": run.started,
        "seconds": round(time.monotonic() - experiment.start, 1),
    }
    files = {"load_state_cxr": Path(config.cxr_weights).name} if config.cxr_weights else {}
    results.write_settings(config.results_dir, run.settings, files)
    text = write_report(
        task,
        samples[split],
        probability,
        ScoringContext(groups, config.bootstrap, RESAMPLE_SEED, means, calibrated),
        run.folder / f"predictions_{split}.csv",
        config.results_dir,
        run_columns,
    )
    logger.info(f"\n{task.name}, {split}, {experiment.store.data_description}\n{text}")
