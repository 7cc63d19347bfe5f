"""What the hidden states of synthetic patients allow: test scores of a linear model that reads them alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.batches import DataConfig, Samples, load_samples
from datasets.store import Store
from datasets.synthetic.patients import BLOCK, HOUR, Course, Strengths, draw_block
from evaluation import metrics
from evaluation.label_checks import check_learnable
from evaluation.scoring import compute_scores
from tasks import TASKS, Task
from utils.cli import run_cli


@dataclass(frozen=True)
class PlantedConfig:
    """Score, on each task's test split, a logistic regression that sees, in place of records and X-rays,
    the hidden states of synthetic patients at the prediction time, and the hours since ICU admission.
    """

    patients: int = 1000
    """Number of patients that the store was made from."""
    seed: int = 0
    """Seed that they were drawn with."""
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True)
class HiddenStates:
    """The courses of all admissions; for each ICU stay its row of `course`, and admission time (s)."""

    course: Course
    stays: pd.DataFrame

    def of(self, samples: Samples) -> np.ndarray:
        """Hidden states at the prediction times of n samples, and hours since ICU admission [n, 7]."""
        own = self.stays.loc[samples.stay_id]
        seconds = own["intime"].to_numpy() + np.round(samples.end_hours * HOUR).astype(np.int64)
        return np.column_stack([self.course.at(own["row"].to_numpy(), seconds), samples.end_hours])


def draw_states(patients: int, seed: int) -> HiddenStates:
    """Draw again what `datasets.synthetic --patients --seed` drew, at its default strengths."""
    courses, stays, rows = [], [], 0
    for block in range(-(-patients // BLOCK)):
        drawn = draw_block(seed, block, Strengths())
        own = drawn.stays.select("stay_id", "intime", row="admission").to_pandas().set_index("stay_id")
        stays.append(own.assign(row=own["row"] + rows))
        courses.append(drawn.course)
        rows += len(drawn.course.latents)
    arrays = {
        name: np.concatenate([getattr(course, name) for course in courses])
        for name in ("latents", "start", "end", "death")
    }
    return HiddenStates(Course(**arrays, strengths=Strengths()), pd.concat(stays))


def check_store(states: HiddenStates, store: Store, config: PlantedConfig) -> None:
    """ValueError if the store's stays are not those that were drawn."""
    stays = store.stays(("stay_id", "intime")).set_index("stay_id")["intime"]
    drawn = states.stays["intime"].reindex(stays.index)
    if not (drawn == stays.astype("datetime64[s]").astype(np.int64)).all():
        raise ValueError(
            f"{store.folder}: its stays are not those of python -m datasets.synthetic --patients "
            f"{config.patients} --seed {config.seed}; give the --patients and --seed that it was made with"
        )


def learn(states: np.ndarray, target: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes [C] of the known targets [n], and their probabilities [m, C] for `unseen` states [m, 7]."""
    known = ~np.isnan(target)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(states[known], target[known].astype(int))
    return model.classes_, model.predict_proba(unseen)


def predict(task: Task, train: Samples, states: HiddenStates, unseen: np.ndarray) -> np.ndarray:
    """Probabilities [m, outputs] of the task for `unseen` states [m, 7]."""
    seen = states.of(train)
    if task.kind == "ordinal":
        found = np.zeros((len(unseen), task.outputs))
        classes, probability = learn(seen, train.labels[:, 0], unseen)
        found[:, classes] = probability
        return found
    return np.column_stack([learn(seen, target, unseen)[1][:, 1] for target in train.labels.T])


def allowed(config: PlantedConfig) -> Iterator[tuple[Task, int, float]]:
    """Each task, how many samples its test split has, and the score on them.

    ValueError if the store is of other patients, or of too few to learn from.
    """
    store = Store.open(config.data.store)
    states = draw_states(config.patients, config.seed)
    check_store(states, store, config)
    for task in TASKS.values():
        train, test = (
            load_samples(store, task.name, task.labels, task.encode, split, config.data, 0)
            for split in ("train", "test")
        )
        if lacking := check_learnable(task, train.labels):
            raise ValueError(f"{task.name}: {lacking}; make the store from more patients")
        probability = predict(task, train, states, states.of(test))
        yield task, len(test), metrics.headline(compute_scores(task, test.labels, probability))[task.monitor]


def main(config: PlantedConfig) -> None:
    """Print the score of every task."""
    print("synthetic patients; from their hidden states:")
    for task, count, score in allowed(config):
        print(f"{task.name:22} {task.monitor:5} {score:.3f}  n {count}", flush=True)


if __name__ == "__main__":
    run_cli(main, PlantedConfig)
