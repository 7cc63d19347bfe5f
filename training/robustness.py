"""Test classifiers on ever fewer X-rays: `python -m training.robustness RUN ...`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import tyro

from datasets.batches import Batches
from datasets.data_config import split_label
from datasets.features import LOADS
from datasets.other_splits import open_store
from datasets.samples import Samples, drop_cxr, load_samples
from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resamples, Subjects
from evaluation.plots.palette import Format
from evaluation.plots.robustness import Robustness
from evaluation.plots.style import save
from evaluation.scoring import compute_scores
from models.classifier import ClassifierConfig, read_classifier
from models.encoders import crop_of, record_needs
from models.fusion import FUSIONS
from tasks import TASKS
from tasks.task import Task
from training.classify_config import ClassifyConfig
from training.predict import predict
from training.provenance import check_no_leakage
from utils import checkpoint
from utils.cli import run_cli
from utils.config import from_dict
from utils.files import atomic_write
from utils.yaml_files import read_yaml_mapping

RATES = tuple(round(0.1 * step, 1) for step in range(11))
ALONE = "ehr"  # the fusion with which all are compared


@dataclass(frozen=True)
class RobustnessConfig:
    """Test finished classifiers with the X-rays of a fraction of the stays, for several fractions.

    Runs of one task, fusion and kind of training stays are seeds of one method, whose scores are averaged.
    Writes <task>.csv and a picture of it. Each score has an interval over the subjects, and so has its
    difference to the classifiers of the EHR alone (--fusion ehr), by the same resamples, if these are among
    the runs.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs of run_gpu.py, or folders that hold such folders."""
    store: Path | None = None
    """Folder of the store; if not given, that of each run."""
    out: Path = Path("results/robustness")
    """Folder of the tables and pictures."""
    rates: tuple[float, ...] = RATES
    """Fractions of the stays with an X-ray that lose it, drawn with the seed of each run as by --drop_cxr."""
    bootstrap: int = 1000
    """Resamples of the subjects."""
    format: Format = "png"
    """Format of the pictures; pdf and svg are sharp at any size, as publishers ask for."""

    def __post_init__(self) -> None:
        if not all(0 <= rate <= 1 for rate in self.rates):
            raise ValueError(f"--rates must be fractions from 0 to 1, not {self.rates}")
        if self.bootstrap < 1:
            raise ValueError(f"--bootstrap must be 1 or more resamples, not {self.bootstrap}")


class Method(NamedTuple):
    """What the seeds of one method have in common: task, fusion, and the stays that it was trained on."""

    task: str
    fusion: str
    trained_on: str  # "all" stays, or "paired": those with an X-ray


@dataclass(frozen=True)
class TestedRun:
    """A run's test samples, and its probabilities [n, outputs] with and without their X-rays.

    No prediction depends on other samples, so both give the probabilities for any fraction of X-rays.
    """

    task: Task
    data: str  # what the store says of its data, such as "synthetic data"
    seed: int
    samples: Samples
    with_cxr: np.ndarray
    without: np.ndarray

    def probability(self, rate: float) -> np.ndarray:
        """Return the probabilities if a fraction of the stays loses its X-ray, as --drop_cxr draws them."""
        lost = drop_cxr(self.samples, rate, self.seed).cxr_row != self.samples.cxr_row
        return np.where(lost[:, None], self.without, self.with_cxr)

    @cached_property
    def paired(self) -> np.ndarray:
        """Which samples have an X-ray, bool [n]."""
        return self.samples.cxr_row >= 0


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of trained classifiers; ValueError if there is none."""
    found = [
        path.parent
        for folder in folders
        for path in sorted([*folder.glob("best.ckpt"), *folder.glob("*/best.ckpt")])
    ]
    if not found:
        given = ", ".join(map(str, folders))
        raise ValueError(f"{given}: there is no best.ckpt; give the folders of runs of run_gpu.py")
    return found


def read_run(folder: Path, store: Path | None) -> tuple[Method, ClassifyConfig]:
    """Return the method and the settings of a run, with another store if one is given."""
    config = from_dict(ClassifyConfig, read_yaml_mapping(folder / "config.yaml"), str(folder / "config.yaml"))
    trained_on = "paired" if config.data.data_pairs in ("paired", "ehr", "cxr") else "all"
    data = config.data if store is None else replace(config.data, store=store)
    return Method(config.task, config.fusion, trained_on), replace(config, data=data)


def predict_run(folder: Path, config: ClassifyConfig) -> TestedRun:
    """Predict the test samples of all stays, with their X-rays and without."""
    task, store = TASKS[config.task], open_store(config.data)
    path = folder / "best.ckpt"
    check_no_leakage(store, path)
    classifier, _, _ = read_classifier(path)
    classifier.eval()
    data = replace(
        config.data, data_pairs="partial", data_ratio=1.0, retrieve_cxr="recent", drop_cxr=(0.0, 0.0, 0.0)
    )
    samples = load_samples(store, task, "test", data, config.run.seed)
    read = replace(data, data_pairs=LOADS[FUSIONS[config.fusion].modalities])

    def probability(of: Samples) -> np.ndarray:
        batches = Batches(
            store,
            of,
            read,
            seed=config.run.seed,
            device=torch.device("cpu"),
            train=False,
            crop=crop_of(classifier),
            needs=record_needs(classifier),
        )
        return predict(classifier.predict, batches)

    whole, without = probability(samples), probability(drop_cxr(samples, 1.0, 0))
    return TestedRun(task, store.data_description, config.run.seed, samples, whole, without)


@dataclass(frozen=True)
class Curve:
    """The mean score of a method's runs, and in each resample [R], for one fraction of the X-rays."""

    value: float
    resampled: np.ndarray
    subjects: Subjects


def score(runs: Sequence[TestedRun], rate: float, paired: bool, metric: str, resamples: int) -> Curve:
    """Score the runs of a method on all test samples, or on those that have an X-ray (before it is lost)."""
    values, resampled = [], []
    for run in runs:
        kept = run.paired if paired else np.ones(len(run.samples), bool)
        truth, probability = run.samples.labels[kept], run.probability(rate)[kept]
        values.append(metrics.headline(compute_scores(run.task, truth, probability))[metric])
        draws = Resamples.of(run.samples.subject_id, resamples, seed=0).take(kept)
        scores = bootstrap.evaluate(run.task.kind, run.task.labels, {}, truth, probability, draws)
        resampled.append(scores["macro", metric])
    of = runs[0].task
    subject = runs[0].samples.subject_id[kept]
    subjects = bootstrap.subjects_of(of.kind, of.labels, {}, truth, subject)["macro"]
    return Curve(float(np.mean(values)), np.mean(resampled, axis=0), subjects)


def rows(
    methods: dict[Method, list[TestedRun]], rates: Sequence[float], resamples: int
) -> Iterator[dict[str, object]]:
    """Yield a row for each method, fraction and kind of test stays."""
    for method, runs in methods.items():
        baseline = methods.get(method._replace(fusion=ALONE), [])
        metric = runs[0].task.monitor
        for tested_on in ("all", "paired"):
            paired = tested_on == "paired"
            alone = score(baseline, 0.0, paired, metric, resamples) if baseline else None
            for rate in rates:
                curve = score(runs, rate, paired, metric, resamples)
                low, high = bootstrap.score_interval(metric, curve.value, curve.resampled, curve.subjects)
                row: dict[str, object] = {
                    **method._asdict(), "data": runs[0].data, "tested_on": tested_on, "rate": rate,
                    "metric": metric, "value": curve.value, "low": low, "high": high, "runs": len(runs),
                }  # fmt: skip
                if alone is not None:
                    difference, drawn = curve.value - alone.value, curve.resampled - alone.resampled
                    low, high = bootstrap.interval(difference, drawn, curve.subjects.deciding)
                    row |= {"difference": difference}
                    row |= {"difference_low": low, "difference_high": high}
                yield row


def main(config: RobustnessConfig) -> None:
    """Test all runs, and write a table and a picture for each task."""
    methods: dict[Method, list[TestedRun]] = {}
    studies: dict[Method, tuple[object, ...]] = {}
    for folder in find_runs(config.runs):
        method, settings = read_run(folder, config.store)
        built = from_dict(ClassifierConfig, checkpoint.load(folder / "best.ckpt")["config"], str(folder))
        encoders = built.encoder_columns.values()
        study = split_label(settings.data), settings.label_fraction, *encoders
        if studies.setdefault(method, study) != study:
            raise ValueError(
                f"{folder} and another run of its method differ in their splits, --label_fraction or "
                "encoders, so that they are no seeds of one method; give the runs of one"
            )
        methods.setdefault(method, []).append(predict_run(folder, settings))
    for task in dict.fromkeys(method.task for method in methods):
        of_task = {method: runs for method, runs in methods.items() if method.task == task}
        table = pd.DataFrame(rows(of_task, config.rates, config.bootstrap))
        path = config.out / f"{task}.csv"
        with atomic_write(path) as partial:
            table.to_csv(partial, index=False)
        figure, picture = Robustness(path).draw()
        picture = picture.with_suffix(f".{config.format}")
        save(figure, picture)
        print(f"{path}\n{picture}")


if __name__ == "__main__":
    run_cli(main, RobustnessConfig)
