"""Score what the latent states of synthetic patients allow: a linear model that reads them alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.data_config import DataConfig
from datasets.samples import Samples, load_samples
from datasets.store import Store
from datasets.synthetic.common import HOUR
from datasets.synthetic.latents import Course
from datasets.synthetic.patients import PATIENTS_PER_BLOCK, draw_block
from datasets.synthetic.simulation import Simulation
from evaluation import metrics
from evaluation.scoring import check_learnable, compute_scores
from tasks import TASKS
from tasks.task import Task
from utils.cli import run_cli


@dataclass(frozen=True)
class PlantedConfig:
    """Score a logistic regression on the latent states of synthetic patients, on each task's test split.

    Instead of records and X-rays it sees the latent states at the prediction time and the hours since ICU
    admission.
    """

    patients: int = 1000
    """Number of patients in the store."""
    seed: int = 0
    """Seed with which they were drawn."""
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True)
class LatentStates:
    """The courses of all admissions."""

    course: Course
    stays: pd.DataFrame  # by stay_id: `row` of the course, and `intime` in seconds since 1970

    def of(self, samples: Samples) -> np.ndarray:
        """Return latent states at the prediction times, and hours since ICU admission [n, 7]."""
        stays = self.stays.loc[samples.stay_id]
        seconds = stays["intime"].to_numpy() + np.round(samples.end_hours * HOUR).astype(np.int64)
        return np.column_stack([self.course.at(stays["row"].to_numpy(), seconds), samples.end_hours])


def draw_states(patients: int, seed: int) -> LatentStates:
    """Repeat the draws of `datasets.synthetic --patients --seed`."""
    courses: list[Course] = []
    stays: list[pd.DataFrame] = []
    admissions = 0
    for number in range(-(-patients // PATIENTS_PER_BLOCK)):
        block = draw_block(seed, number, Simulation())
        row = pl.col("admission") + admissions
        stays.append(block.stays.select("stay_id", "intime", row=row).to_pandas().set_index("stay_id"))
        courses.append(block.course)
        admissions += len(block.course.latents)
    arrays = {
        name: np.concatenate([getattr(course, name) for course in courses])
        for name in ("latents", "start", "end", "death")
    }
    return LatentStates(Course(**arrays, simulation=Simulation()), pd.concat(stays))


def check_store(states: LatentStates, store: Store, config: PlantedConfig) -> None:
    """Raise ValueError if the store was made from other patients."""
    stays = store.stays(("stay_id", "intime")).set_index("stay_id")["intime"]
    expected = states.stays["intime"].reindex(stays.index)
    if not (expected == stays.astype("datetime64[s]").astype(np.int64)).all():
        raise ValueError(
            f"{store.folder} was not made from python -m datasets.synthetic --patients {config.patients} "
            f"--seed {config.seed}; give the --patients and --seed with which it was made"
        )


def fit_and_predict(train: np.ndarray, target: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes [C] of the known targets [n], and their probabilities [m, C] for `test` [m, 7]."""
    known = ~np.isnan(target)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(train[known], target[known].astype(int))
    return model.classes_, model.predict_proba(test)


def predict(task: Task, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return probabilities [m, outputs] for `test` [m, 7], learned from `train` [n, 7] and its labels."""
    if task.kind == "ordinal":
        probabilities = np.zeros((len(test), task.outputs))
        classes, probabilities_of_classes = fit_and_predict(train, labels[:, 0], test)
        probabilities[:, classes] = probabilities_of_classes
        return probabilities
    return np.column_stack([fit_and_predict(train, target, test)[1][:, 1] for target in labels.T])


def reference_scores(config: PlantedConfig) -> Iterator[tuple[Task, int, float]]:
    """Yield each task, the number of its test samples, and the score on them.

    Raises:
        ValueError: The store has other patients, or too few to learn from.
    """
    store = Store.open(config.data.store)
    states = draw_states(config.patients, config.seed)
    check_store(states, store, config)
    for task in TASKS.values():
        train, test = (load_samples(store, task, split, config.data, 0) for split in ("train", "test"))
        if problem := check_learnable(task, train.labels):
            raise ValueError(f"{task.name}: {problem}; make the store from more patients")
        probability = predict(task, states.of(train), train.labels, states.of(test))
        yield task, len(test), metrics.headline(compute_scores(task, test.labels, probability))[task.monitor]


def main(config: PlantedConfig) -> None:
    """Print the score of every task."""
    print("synthetic patients; from their latent states:")
    for task, count, score in reference_scores(config):
        print(f"{task.name:22} {task.monitor:5} {score:.3f}  n {count}", flush=True)


if __name__ == "__main__":
    run_cli(main, PlantedConfig)
