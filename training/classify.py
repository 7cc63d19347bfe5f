"""Train and evaluate classifiers: supervised, fine-tuned, or linear on the features of frozen encoders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from datasets.batches import SAMPLE_SELECTIONS, Batches, DataConfig, Samples, load_samples
from datasets.features import FeatureBatches
from datasets.schema import SPLITS
from datasets.store import Store
from datasets.unique_inputs import LOADS, UniqueInputs
from evaluation import metrics, subgroups
from evaluation.embeddings import EMBEDDINGS, write_embeddings
from evaluation.label_checks import check_learnable, has_scorable_label
from evaluation.scoring import ScoringContext, class_means, compute_scores, write_report
from models.classifier import (
    Classifier,
    ClassifierConfig,
    classifier_checkpoint,
    load_classifier,
    read_classifier,
    start_classifier,
)
from models.encoders import FIELDS_OF_ENCODER, Encoder, EncoderConfig
from models.fusion import FUSIONS, FusionConfig, FusionName, get_fusion
from models.linear_probe import LinearProbe
from tasks import TASKS, Task, TaskName, get_task
from training.early_stopping import PatienceConfig, StoppingConfig
from training.features import SharedFeatures
from training.loop import fit
from training.optim import OptimConfig, check_flag
from training.predict import predict
from training.provenance import check_no_leakage, training_subjects
from utils import checkpoint, distributed
from utils.config import resumable
from utils.run import Run, RunConfig, start_run

RANDOM = "random"  # what --load_state says for encoders that nothing has trained


@dataclass(frozen=True)
class ClassifierOptim(OptimConfig):
    """How a classifier is optimized: newly initialized weights may learn faster than pretrained encoders."""

    head_lr: float = 0.0
    """Peak learning rate of all weights outside the encoders; 0: --lr."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A value is out of range; the message names the flag.
        """
        super().__post_init__()
        check_flag("head_lr", self.head_lr, self.head_lr >= 0, "use a number above 0, or 0 for --lr")


@dataclass(frozen=True)
class ClassifyConfig:
    """Train a classifier for a task and test its best epoch, or evaluate one that was trained before."""

    protocol: Literal["supervised", "finetune", "lineareval"] = "lineareval"
    """supervised trains all from the start, finetune from pretrained encoders; lineareval trains one linear
    layer on the features of pretrained encoders that stay as they are."""
    mode: Literal["train", "eval"] = "train"
    """train also tests the best epoch; eval tests the classifier in --load_state."""
    task: TaskName = "in-hospital-mortality"
    """What to predict."""
    fusion: FusionName = "concatenation"
    """Which modalities to classify from, and how they meet."""
    load_state: str = resumable("")
    """Checkpoint with the encoders (finetune, lineareval) or with the whole classifier (--mode eval); random
    is lineareval's baseline of encoders that nothing has trained."""
    load_state_ehr: str = resumable("")
    """Checkpoint that the EHR encoder starts from: of a pretraining, or of a classifier such as --fusion ehr.
    Under each --protocol; in place of --load_state for this encoder."""
    load_state_cxr: str = resumable("")
    """The same for the image encoder."""
    fusion_layer: Literal[0, 3] = 0
    """Classify from the outputs of the encoders (0) or of their projection heads (3)."""
    results_dir: Path = resumable(Path("results"))
    """Folder of the result tables, one a task."""
    bootstrap: int = resumable(1000)
    """Resamples of a split's subjects that the 95 % intervals of the scores come from; 0: no intervals."""
    subgroups: str = resumable("")
    """Also score subgroups of the patients, and the gap between them: some of age,sex,race."""
    fusion_settings: FusionConfig = field(default_factory=FusionConfig)
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: ClassifierOptim = resumable(ClassifierOptim())
    stopping: PatienceConfig = resumable(PatienceConfig())  # the task names the monitor
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown task or fusion."""
        get_task(self.task)
        get_fusion(self.fusion)


@dataclass(frozen=True)
class Experiment:
    """One run of this script, opened: what is asked, of which data, where, and since when, in seconds."""

    config: ClassifyConfig
    task: Task
    store: Store
    run: Run
    began: float


def classify(config: ClassifyConfig) -> None:
    """Train and test, or evaluate, as --mode says."""
    check(config)
    MODES[config.mode](config)
    distributed.shutdown()


def train(config: ClassifyConfig) -> None:
    """Train a classifier, keep its best validation epoch, and report that on validation and test."""
    experiment = open_experiment(config, "")
    task, states = experiment.task, sources(config)
    subjects = {"subjects": training_subjects(experiment.store, map(Path, states.values()))}
    classifier, built = start_classifier(classifier_config(config), states)
    samples = {split: read_samples(experiment, split) for split in SPLITS}
    learn = LEARNERS[config.protocol]
    objective, batches = learn(experiment, classifier, samples)

    def validate() -> dict[str, float]:
        return metrics.headline(
            compute_scores(task, samples["val"].labels, probabilities(objective, batches["val"]))
        )

    monitor, mode = selection_metric(experiment, samples)
    result = fit(
        objective,
        batches["train"],
        batches["val"],
        config.optim,
        StoppingConfig(config.stopping.patience, config.stopping.min_delta, monitor, mode),
        experiment.run,
        score=validate,
        save=lambda: classifier_checkpoint(objective, built) | subjects,
        lr_scales=head_lr_scales(objective, config.optim),
    )
    restore_best(experiment, objective, classifier, built)
    for split in ("val", "test"):
        found = probabilities(objective, batches[split])
        report(experiment, built, result.best_epoch, split, samples, found)


def evaluate(config: ClassifyConfig) -> None:
    """Report the classifier in --load_state on the test split."""
    experiment = open_experiment(config, "-eval")
    check_no_leakage(experiment.store, Path(config.load_state))
    classifier, built, epoch = load_trained(config)
    needed = (
        ("train", "test") if experiment.task.kind == "ordinal" else ("test",)
    )  # train for what classes mean
    samples = {split: read_samples(experiment, split) for split in needed}
    objective, batches = LEARNERS[config.protocol](experiment, classifier, {"test": samples["test"]})
    found = probabilities(objective, batches["test"])
    report(experiment, built, epoch, "test", samples, found)


MODES = {"train": train, "eval": evaluate}


def head_lr_scales(objective: nn.Module, config: ClassifierOptim) -> dict[nn.Parameter, float]:
    """Return the learning rates of all weights outside the encoders, as multiples of --lr."""
    if not config.head_lr:
        return {}
    encoders = [module for module in objective.modules() if isinstance(module, Encoder)]
    encoder_weights = {weight for encoder in encoders for weight in encoder.parameters()}
    heads = [weight for weight in objective.parameters() if weight not in encoder_weights]
    return dict.fromkeys(heads, config.head_lr / config.lr)


def check(config: ClassifyConfig) -> None:
    """ValueError, with the cure, for settings that contradict each other."""
    classifier_config(config)
    subgroups.parse_subgroups(config.subgroups)
    if config.bootstrap < 0:
        raise ValueError(f"--bootstrap must be 0 or more resamples, not {config.bootstrap}")
    state, pairs, training = config.load_state, config.data.data_pairs, config.mode == "train"
    fusion, given = FUSIONS[config.fusion], sources(config)
    supervised, untrained = training and config.protocol == "supervised", training and state == RANDOM
    lacking, fresh = len(given) < len(fusion.modalities), supervised or untrained
    asked = f"--mode {config.mode} --protocol {config.protocol}"
    held = [name for m in FIELDS_OF_ENCODER if m in given or not fresh for name in FIELDS_OF_ENCODER[m]]
    shape = [f"--{n}" for n in held if getattr(config.encoders, n) != getattr(EncoderConfig(), n)]
    idle = [m for m in FIELDS_OF_ENCODER if not training or untrained or m not in fusion.modalities]
    unread = [f"--load_state_{m}" for m in idle if getattr(config, f"load_state_{m}")]
    rules = {
        f"{asked} needs --load_state, the path of a checkpoint": not fresh
        and (lacking or (not training and state in ("", RANDOM))),
        f"{asked} starts afresh; leave out --load_state, or use --protocol finetune": supervised and state,
        f"{asked} --load_state {RANDOM} is --protocol supervised": fresh and config.protocol == "finetune",
        f"{asked}: fresh encoders have no heads; use --fusion_layer 0": lacking and config.fusion_layer == 3,
        f"the encoders are built as their checkpoint says; leave out {', '.join(shape)}": shape,
        f"{asked} --fusion {config.fusion} reads no {', '.join(unread)}; leave it out": unread,
        f"--fusion {config.fusion} keeps its encoders as they are; give trained ones by --load_state_ehr and "
        "--load_state_cxr": fusion.freezes_encoders and training and lacking,
        f"--data_pairs {pairs} has too little for --fusion {config.fusion}; use --data_pairs paired": not all(
            getattr(SAMPLE_SELECTIONS[pairs], modality) for modality in fusion.modalities
        ),
    }
    for message, broken in rules.items():
        if broken:
            raise ValueError(message)


def sources(config: ClassifyConfig) -> dict[str, str]:
    """{modality: checkpoint that its encoder starts from}, of the fusion's encoders that start from one."""
    modalities = FUSIONS[config.fusion].modalities
    found = {name: getattr(config, f"load_state_{name}") or config.load_state for name in modalities}
    return {name: path for name, path in found.items() if path not in ("", RANDOM)}


def open_experiment(config: ClassifyConfig, suffix: str) -> Experiment:
    """Opens store and run; the run is named after task, protocol, fusion and the suffix."""
    began, task = time.monotonic(), TASKS[config.task]
    store = Store.open(config.data.store)  # before the run: a wrong --store leaves no folder behind
    name = f"{task.name}-{config.protocol}-{config.fusion}{suffix}"
    began_with = {
        f"load_state_{name}": checkpoint.fingerprint(Path(p)) for name, p in sources(config).items()
    }
    run = start_run(config, name, store.data_description, store.fingerprint, began_with)
    return Experiment(config, task, store, run, began)


def classifier_config(config: ClassifyConfig) -> ClassifierConfig:
    """What is asked for; its encoders' shape gives way to their checkpoints'."""
    task = TASKS[config.task]
    return ClassifierConfig(
        fusion=config.fusion,
        kind=task.kind,
        outputs=task.outputs,
        encoders=config.encoders,
        fusion_layer=config.fusion_layer,
        objective=RANDOM if config.load_state == RANDOM else "supervised",
        task=task.name,
        protocol=config.protocol,
        checkpoint=config.load_state,
        fusion_settings=config.fusion_settings,
    )


def load_trained(config: ClassifyConfig) -> tuple[Classifier, ClassifierConfig, int]:
    """The classifier in --load_state and its epoch; ValueError if the flags speak of another."""
    classifier, built, epoch = read_classifier(Path(config.load_state))
    for name in ("task", "protocol", "fusion", "fusion_layer"):
        asked, trained = getattr(config, name), getattr(built, name)
        if asked != trained:
            raise ValueError(f"--{name} {asked}: {config.load_state} was trained with --{name} {trained}")
    if config.fusion_settings not in (FusionConfig(), built.fusion_settings):
        raise ValueError(f"{config.load_state} was trained with {built.fusion_settings}; leave out its flags")
    return classifier, replace(built, checkpoint=config.load_state), epoch


def read_samples(experiment: Experiment, split: str) -> Samples:
    """The samples of a split."""
    task, data = experiment.task, experiment.config.data
    return load_samples(
        experiment.store, task.name, task.labels, task.encode, split, data, experiment.run.seed
    )


def read_batches(experiment: Experiment, samples: Samples, learn: bool = False) -> Batches:
    """Batches of samples: shuffled and with random views to learn from, else in order and as they are.

    They load no modality that the fusion does not look at.
    """
    here, data, modalities = (
        experiment.run.process,
        experiment.config.data,
        FUSIONS[experiment.config.fusion].modalities,
    )
    return Batches(
        experiment.store,
        samples,
        replace(data, data_pairs=LOADS[modalities], data_ratio=1.0, retrieve_cxr="recent"),
        seed=experiment.run.seed,
        device=here.device,
        train=learn,
        rank=here.rank,
        world=here.world,
    )


def selection_metric(
    experiment: Experiment, samples: Mapping[str, Samples]
) -> tuple[str, Literal["min", "max"]]:
    """Return the monitor that chooses the best epoch and its mode; log which labels have only one class.

    Raises:
        ValueError: No label of the train split has two classes.
    """
    task = experiment.task
    if lacking := check_learnable(task, samples["train"].labels):
        experiment.run.info(f"{lacking}; what is predicted of them means nothing")
    if has_scorable_label(task, samples["val"].labels):
        return task.monitor, "max"
    experiment.run.info(
        f"the validation split holds one class of every label of {task.name}, so that no score can choose "
        f"the best epoch: the validation loss does, on {len(samples['val'])} samples"
    )
    return "val_loss", "min"


def prepare_end_to_end(
    experiment: Experiment, classifier: Classifier, samples: Mapping[str, Samples]
) -> tuple[Classifier, dict[str, Batches]]:
    """What to train and on what: the classifier on its batches."""
    batches = {name: read_batches(experiment, part, name == "train") for name, part in samples.items()}
    return classifier.to(experiment.run.process.device), batches


def prepare_probe(
    experiment: Experiment, classifier: Classifier, samples: Mapping[str, Samples]
) -> tuple[Classifier, dict[str, FeatureBatches]]:
    """What to train and on what: the linear layer on features, computed once by the encoders as they are."""
    here, data, fusion = (
        experiment.run.process,
        experiment.config.data,
        classifier.fusion.to(experiment.run.process.device),
    )
    shared = {name: UniqueInputs(experiment.store, samples, name, data, here) for name in fusion.modalities}
    features, batches = SharedFeatures(fusion, shared, here.device), {}
    for name, part in samples.items():
        table = features.features_of(name)
        experiment.run.info(f"features of {name}: {table.shape[0]} samples x {table.shape[1]}")
        if name == "test" and distributed.is_main():
            told = experiment.task.labels, part.labels, experiment.run.seed
            write_embeddings(experiment.run.folder / EMBEDDINGS, table.cpu().numpy(), *told)
        batches[name] = FeatureBatches(
            table,
            torch.from_numpy(part.labels).to(here.device),
            data.batch_size,
            seed=experiment.run.seed,
            train=name == "train",
            rank=here.rank,
            world=here.world,
        )
    return Classifier(LinearProbe(fusion.linear), experiment.task.kind), batches


LEARNERS = {"supervised": prepare_end_to_end, "finetune": prepare_end_to_end, "lineareval": prepare_probe}


def restore_best(
    experiment: Experiment, objective: Classifier, classifier: Classifier, built: ClassifierConfig
) -> None:
    """Puts the best epoch into the classifier, and the whole classifier into best.ckpt."""
    path = experiment.run.folder / "best.ckpt"
    state = checkpoint.load(path)
    load_classifier(objective, state)
    if distributed.is_main() and objective is not classifier:
        kept = {name: state[name] for name in ("epoch", "subjects")}
        checkpoint.save(path, classifier_checkpoint(classifier, built) | kept)


def probabilities(objective: Classifier, batches: Batches | FeatureBatches) -> np.ndarray:
    """[n, outputs] of all samples, in their order."""
    objective.eval()
    return predict(objective.predict, batches)


def report(
    experiment: Experiment,
    built: ClassifierConfig,
    epoch: int,
    split: str,
    samples: Mapping[str, Samples],
    probability: np.ndarray,
) -> None:
    """Writes the predictions and the result rows of a split, and prints the means."""
    if not distributed.is_main():
        return
    run, config, task, here = experiment.run, experiment.config, experiment.task, samples[split]
    told = {name: getattr(built, name) for name in ("task", "protocol", "fusion", "objective", "checkpoint")}
    told |= {"run": run.name, "epoch": epoch, "split": split, "seed": run.seed, "commit": run.commit}
    told |= {"started": run.started, "seconds": round(time.monotonic() - experiment.began, 1)}
    predictions = run.folder / f"predictions_{split}.csv"
    people = subgroups.sample_subgroups(experiment.store, here, subgroups.parse_subgroups(config.subgroups))
    means = class_means(task, samples["train"]) if task.kind == "ordinal" else None
    judging = ScoringContext(people, config.bootstrap, run.seed, means)
    text = write_report(task, here, probability, judging, predictions, config.results_dir, told)
    run.info(f"\n{task.name}, {split}, {experiment.store.data_description}\n{text}")
