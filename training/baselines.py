"""Floors without a network: `python -m training.baselines`, on summary statistics of the records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from datasets.data_config import DataConfig
from datasets.samples import Samples, load_samples
from datasets.schema import SPLITS
from datasets.store import Store
from datasets.summaries import summarize
from evaluation import metrics, results
from evaluation.calibration import calibrate
from evaluation.scoring import (
    ScoringContext,
    check_learnable,
    class_means,
    compute_scores,
    has_scorable_label,
    write_report,
)
from evaluation.subgroups import parse_subgroups, sample_subgroups
from tasks import TASKS, TaskName, get_task
from tasks.task import Task
from utils.choices import one_of
from utils.cli import run_cli
from utils.config import decisive_settings, digest, neutral
from utils.lock import releasing_locks
from utils.log import logger
from utils.run import Run, start_run
from utils.run_config import RunConfig

MODELS = ("logistic_regression", "gradient_boosting")
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths C of the L2 penalty
LEAVES, ROUNDS = (7, 31), (25, 50, 100, 200)
LEARNING_RATE = 0.1
FARTHEST = 10.0  # standard deviations from the mean, at which logistic regression clips a feature
SAMPLES_AT_ONCE = 20_000  # of which features are held, beside those of training
PREDICTIONS = "predictions_{}.csv"


@dataclass(frozen=True)
class BaselineConfig:
    """Fit a classifier without a network on summary statistics of the records, and test it.

    The same splits, scores, intervals and result tables as for networks show whether one is needed. The
    settings of a model are chosen by the validation split.
    """

    task: TaskName = "in-hospital-mortality"
    """What to predict."""
    model: Annotated[Literal["logistic_regression", "gradient_boosting"], one_of(MODELS)] = (
        "logistic_regression"
    )
    """Logistic regression with an L2 penalty, or gradient-boosted trees over histograms, of scikit-learn."""
    store: Path = neutral(Path("data/synthetic"))
    """Folder of the store (made by `python -m datasets.extract`)."""
    data_pairs: Literal["paired", "ehr_all"] = "ehr_all"
    """ehr_all: all samples. paired: those that have an X-ray, which is not read."""
    every_hours: int = 1
    """Decompensation and length-of-stay have a sample per hour: keep those of every n-th hour, in all splits;
    1 keeps all."""
    most_samples: int = 100_000
    """Training samples at most; of more, as many are drawn with the seed. 100,000 take 350 MB."""
    seed: int = 0
    """Seed of the drawn training samples and of the intervals."""
    name: str = neutral("")
    """Folder of the run inside --save_dir; empty: derived from the other settings."""
    save_dir: Path = neutral(Path("runs"))
    """Folder that holds one folder per run."""
    results_dir: Path = neutral(Path("results"))
    """Folder of the result tables, one per task."""
    bootstrap: int = neutral(1000)
    """Bootstrap resamples of a split's subjects, for the 95 % intervals of the scores; 0: no intervals."""
    subgroups: str = neutral("")
    """Also score subgroups of the patients and the gap between them: any of age, sex, race, admission, unit,
    years and has_xray, separated by commas; sex+race is an intersection."""

    def __post_init__(self) -> None:
        get_task(self.task)
        parse_subgroups(self.subgroups)
        if self.model not in MODELS:
            raise ValueError(f"--model {self.model} is none of {', '.join(MODELS)}")
        if self.most_samples < 2:
            raise ValueError(f"--most_samples must be 2 or more, not {self.most_samples}")
        if self.bootstrap < 0:
            raise ValueError(f"--bootstrap must be 0 or more resamples, not {self.bootstrap}")
        self.data()

    @property
    def run(self) -> RunConfig:
        """Where the run writes."""
        return RunConfig(name=self.name, save_dir=self.save_dir, seed=self.seed, device="cpu")

    def data(self) -> DataConfig:
        """Return which samples are read."""
        pairs: Literal["ehr", "ehr_all"] = "ehr" if self.data_pairs == "paired" else "ehr_all"
        return DataConfig(store=self.store, data_pairs=pairs, every_hours=self.every_hours)


Predictor = Callable[[np.ndarray], list[np.ndarray]]  # features [n, F] -> probabilities for each setting


class Fit(NamedTuple):
    """A fitted model that predicts with each of several settings; `prepare` makes its features."""

    settings: tuple[str, ...]
    predictor: Predictor
    prepare: Callable[[np.ndarray], np.ndarray]

    def predict(self, features: np.ndarray) -> list[np.ndarray]:
        """Return the probabilities [n, outputs] of features [n, F] for each setting."""
        return self.predictor(self.prepare(features))


class Candidate(NamedTuple):
    """Settings of a model, and its probabilities [n, outputs] for the validation and the test split."""

    settings: str
    val: np.ndarray
    test: np.ndarray


@releasing_locks()
def fit_baseline(config: BaselineConfig) -> None:
    """Fit the model with each of its settings, choose by the validation split, and report both splits."""
    start = time.monotonic()
    task, store = TASKS[config.task], Store.open(config.store)
    settings = {path: value for path, value in decisive_settings(config).items() if path != "seed"}
    name = f"{task.name}-baseline-{config.model}-seed{config.seed}"
    folder = config.run.save_dir / (config.run.name or name)
    if (folder / PREDICTIONS.format("test")).exists():
        raise FileExistsError(f"{folder} holds a run; choose another --name")
    run = start_run(config, name, store.data_description, store.fingerprint_of(task.name), settings=settings)
    with run.getting_ready():
        if run.process.world > 1:
            raise ValueError("the baselines use one process; start them without torchrun")
        results.append(config.results_dir / f"{task.name}.csv", ())
        samples = {split: load_samples(store, task, split, config.data(), config.seed) for split in SPLITS}
        samples["train"] = draw(samples["train"], config.most_samples, config.seed)
        if problem := check_learnable(task, samples["train"].labels):
            logger.warning(f"{problem}; predictions of them are meaningless")
    fits = fit_all(
        task, config.model, summarize(store, samples["train"]), samples["train"].labels, config.seed
    )
    settings_of = [name for fit in fits for name in fit.settings]
    val, test = (predict_all(fits, store, samples[split]) for split in ("val", "test"))
    found = [Candidate(*parts) for parts in zip(settings_of, val, test, strict=True)]
    best = choose(task, samples["val"], found)
    logger.info(f"chosen by the validation split: {best.settings}")
    calibrated: Mapping[str, np.ndarray] = {}
    if task.kind != "ordinal":
        calibrated = calibrate(samples["val"].labels, best.val, best.test)
    for split, probability in (("val", best.val), ("test", best.test)):
        seconds, more = time.monotonic() - start, calibrated if split == "test" else {}
        report(config, run, task, store, samples, split, probability, more, seconds)


def draw(samples: Samples, most: int, seed: int) -> Samples:
    """Return at most `most` samples, drawn with a seed, in their order."""
    if len(samples) <= most:
        return samples
    logger.info(f"{most} of {len(samples)} training samples are drawn; --most_samples takes more")
    return samples.take(np.sort(np.random.default_rng(seed).permutation(len(samples))[:most]))


def choose(task: Task, val: Samples, found: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the best score of the validation split, the first of equals.

    The score is the task's monitor; if no label has two classes there, the first candidate is taken.
    """
    if not has_scorable_label(task, val.labels):
        return found[0]
    scores = [
        metrics.headline(compute_scores(task, val.labels, part.val, subject=val.subject_id))[task.monitor]
        for part in found
    ]
    for candidate, score in zip(found, scores, strict=True):
        logger.info(f"  {candidate.settings}: validation {task.monitor} {score:.4f}")
    return found[int(np.nanargmax(scores))]


def fit_all(task: Task, model: str, features: np.ndarray, labels: np.ndarray, seed: int) -> list[Fit]:
    """Fit a model with each of its settings to features [n, F] and targets [n, L] of the training split.

    A feature that no training sample has is left out.
    """
    observed = ~np.isnan(features).all(axis=0)
    logger.info(f"{len(features)} training samples, {observed.sum()} of {len(observed)} features observed")
    choices: list[tuple[tuple[str, ...], Callable[[np.ndarray, np.ndarray], Predictor]]]
    if model == "logistic_regression":
        scale = scaling(features[:, observed])

        def prepare(part: np.ndarray) -> np.ndarray:
            return scale(part[:, observed])

        choices = [((f"C {penalty:g}",), partial(_fit_regression, penalty=penalty)) for penalty in PENALTIES]
    else:

        def prepare(part: np.ndarray) -> np.ndarray:
            return part[:, observed]

        choices = [
            (
                tuple(f"{rounds} trees of {leaves} leaves" for rounds in ROUNDS),
                partial(_fit_trees, leaves=leaves, seed=seed),
            )
            for leaves in LEAVES
        ]
    train = prepare(features)
    return [Fit(names, _of_labels(task, train, labels, len(names), fit), prepare) for names, fit in choices]


def predict_all(fits: Sequence[Fit], store: Store, samples: Samples) -> list[np.ndarray]:
    """Return the probabilities [n, outputs] of samples by each setting of each fit, a part at a time."""
    order = np.argsort(samples.offset, kind="stable")
    parts = []
    for rows in np.array_split(order, -(-len(order) // SAMPLES_AT_ONCE)):
        features = summarize(store, samples.take(rows))
        parts.append([probability for fit in fits for probability in fit.predict(features)])
    back = np.argsort(order, kind="stable")
    return [np.concatenate(of_setting)[back] for of_setting in zip(*parts, strict=True)]


def _of_labels(
    task: Task,
    features: np.ndarray,
    labels: np.ndarray,
    settings: int,
    fit: Callable[[np.ndarray, np.ndarray], Predictor],
) -> Predictor:
    """Fit a model to each label, or to the classes of an ordinal task.

    Samples whose label is unknown are left out; a label with one class in training has its probability.
    """
    outputs = task.classes if task.kind == "ordinal" else 2
    predictors = []
    for target in labels.T:
        known = ~np.isnan(target)
        classes = np.unique(target[known]).astype(int)
        if len(classes) < 2:
            predictors.append(partial(_constant, classes, outputs, settings))
        else:
            predictors.append(partial(_in_columns, fit(features[known], target[known]), classes, outputs))

    def predict(part: np.ndarray) -> list[np.ndarray]:
        of_labels = [predictor(part) for predictor in predictors]
        if task.kind == "ordinal":
            return of_labels[0]
        return [
            np.stack([columns[:, 1] for columns in parts], axis=1) for parts in zip(*of_labels, strict=True)
        ]

    return predict


def _constant(classes: np.ndarray, outputs: int, settings: int, features: np.ndarray) -> list[np.ndarray]:
    """Return probability 1 of the only class, if there is one, for each setting."""
    columns = np.zeros((len(features), outputs))
    columns[:, classes] = 1.0
    return [columns] * settings


def _in_columns(
    predictor: Predictor, classes: np.ndarray, outputs: int, features: np.ndarray
) -> list[np.ndarray]:
    """Put the probabilities of some classes into the columns of all, [n, outputs]; 0 for the others."""
    found = []
    for probability in predictor(features):
        columns = np.zeros((len(features), outputs))
        columns[:, classes] = probability
        found.append(columns)
    return found


def _fit_regression(features: np.ndarray, target: np.ndarray, penalty: float) -> Predictor:
    model = LogisticRegression(C=penalty, max_iter=1000).fit(features, target.astype(int))
    return lambda part: [model.predict_proba(part)]


def _fit_trees(features: np.ndarray, target: np.ndarray, leaves: int, seed: int) -> Predictor:
    """Fit the most trees; the settings are the first ones of them."""
    model = HistGradientBoostingClassifier(
        learning_rate=LEARNING_RATE,
        max_iter=max(ROUNDS),
        max_leaf_nodes=leaves,
        early_stopping=False,  # it would hold out samples at random, not subjects
        random_state=seed,
    ).fit(features, target.astype(int))

    def predict(part: np.ndarray) -> list[np.ndarray]:
        stages = enumerate(model.staged_predict_proba(part), 1)
        return [probability for rounds, probability in stages if rounds in ROUNDS]

    return predict


def scaling(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives features mean 0 and deviation 1 in training, 0 where missing, clipped at FARTHEST."""
    mean = np.nanmean(train, axis=0, dtype=np.float64)
    deviation = np.nanstd(train, axis=0, dtype=np.float64)
    deviation[deviation < 1e-7] = 1.0

    def scale(features: np.ndarray) -> np.ndarray:
        scaled = np.clip((features - mean) / deviation, -FARTHEST, FARTHEST)
        filled: np.ndarray = np.nan_to_num(scaled, copy=False).astype(np.float32)
        return filled

    return scale


def report(
    config: BaselineConfig,
    run: Run,
    task: Task,
    store: Store,
    samples: Mapping[str, Samples],
    split: str,
    probability: np.ndarray,
    calibrated: Mapping[str, np.ndarray],
    seconds: float,
) -> None:
    """Write the predictions and the result rows of a split, and print the mean scores.

    `calibrated` holds the probabilities after each kind of calibration.
    """
    groups = sample_subgroups(store, samples[split], parse_subgroups(config.subgroups))
    means = class_means(task, samples["train"]) if task.kind == "ordinal" else None
    columns = {
        "task": task.name,
        "protocol": "baseline",
        "fusion": config.model,
        "objective": "supervised",
        "run": run.name,
        "mode": "train",
        "seed": run.seed,
        "data": store.data_kind,
        "store": run.store[: results.HASH_DIGITS],
        "data_pairs": config.data_pairs,
        **dict.fromkeys(results.ENCODERS, results.NO_ENCODER),
        "settings": digest(run.settings),
        "split": split,
        "commit": run.commit,
        "started": run.started,
        "seconds": round(seconds, 1),
    }
    results.write_settings(config.results_dir, run.settings)
    context = ScoringContext(groups, config.bootstrap, run.seed, means, calibrated)
    predictions = run.folder / PREDICTIONS.format(split)
    text = write_report(task, samples[split], probability, context, predictions, config.results_dir, columns)
    logger.info(f"\n{task.name}, {split}, {store.data_description}\n{text}")


if __name__ == "__main__":
    run_cli(fit_baseline, BaselineConfig)
