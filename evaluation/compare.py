"""The difference between two runs, or the seeds of two settings, by a paired bootstrap over subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resampled, Resamples, Subjects
from evaluation.metrics import Score
from evaluation.names import data_notice, metric_of
from evaluation.predictions import read_predictions, to_arrays
from evaluation.results import HASH_DIGITS
from utils.yaml_files import read_yaml_mapping

SAMPLE_COLUMNS = ("stay_id", "subject_id", "end_hours", "label", "truth")  # equal in runs to compare
SIGNIFICANT = 0.05  # p values below it
KINDS = {
    "real data": "real",
    "synthetic data": "synthetic",
    "real records with synthetic X-rays": "synthetic X-rays",
}


@dataclass(frozen=True)
class Compare:
    """Compare the predictions of two runs by a paired bootstrap over subjects: compare RUN_A RUN_B.

    With --against, each side may have several runs, the seeds of one setting: compare RUN_A ... --against
    RUN_B .... Their scores are averaged in each resample, which is the same for all runs.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of two runs, a and b, with their predictions_<split>.csv; with --against those of side a."""
    against: tuple[Path, ...] = ()
    """Folders of the runs of side b."""
    split: str = "test"
    """Split whose predictions are compared."""
    labels: bool = False
    """Also compare each label."""
    resamples: int = 1000
    """Resamples of the subjects."""
    seed: int = 0
    """Seed of the resamples."""

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, not {self.resamples}")
        if not self.against and len(self.runs) != 2:
            raise ValueError(
                f"compare takes two runs, not {len(self.runs)}; put those of side b after --against"
            )

    @property
    def sides(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """The folders of side a and of side b."""
        return (self.runs, self.against) if self.against else (self.runs[:1], self.runs[1:])


@dataclass(frozen=True, eq=False)
class SideScores:
    """The mean scores of the runs of a side, and those in every resample."""

    scores: Mapping[tuple[str, str], Score]  # by label and metric
    resampled: Resampled
    subjects: Mapping[str, Subjects]  # by label


class Samples:
    """The samples that all compared runs must share: those of the first run that is read."""

    def __init__(self, split: str, resamples: int, seed: int) -> None:
        self.name = f"predictions_{split}.csv"
        self.count, self.seed = resamples, seed
        self.first: tuple[Path, pd.DataFrame] | None = None

    def score(self, runs: Sequence[Path]) -> SideScores:
        """Return the mean scores of some runs, each a seed of the same setting.

        Raises:
            ValueError: predictions are missing, or of other samples than those before, or settings differ.
        """
        check_same_settings(runs)
        parts = [self._score_run(run / self.name) for run in runs]
        scores = {}
        for key in parts[0].scores:
            values = [part.scores[key]["value"] for part in parts]
            scores[key] = Score(**parts[0].scores[key] | {"value": float(np.mean(values))})
        mean = {key: np.mean([part.resampled[key] for part in parts], axis=0) for key in parts[0].resampled}
        return SideScores(scores, mean, parts[0].subjects)

    def _score_run(self, path: Path) -> SideScores:
        table = read_predictions(path)
        if self.first is None:
            self.first = path, table
        self._check_same(path, table)
        kind, labels, subject_id, truth, probability = to_arrays(table, path)
        resamples = Resamples.of(subject_id, self.count, self.seed)
        scores = metrics.evaluate(kind, labels, {}, truth, probability, subject=subject_id)
        resampled = bootstrap.evaluate(kind, labels, {}, truth, probability, resamples)
        subjects = bootstrap.subjects_of(kind, labels, {}, truth, subject_id)
        by_name = {(score["label"], score["metric"]): score for score in scores}
        return SideScores({key: by_name[key] for key in resampled}, resampled, subjects)

    def _check_same(self, path: Path, table: pd.DataFrame) -> None:
        assert self.first is not None
        first_path, first = self.first
        if len(table) != len(first):
            difference = f"{len(first)} and {len(table)} rows"
        else:
            difference = ", ".join(name for name in SAMPLE_COLUMNS if not first[name].equals(table[name]))
        if difference:
            raise ValueError(
                f"{first_path} and {path} are of different samples ({difference}); "
                "evaluate both with the same --task, --store, --data_pairs and --retrieve_cxr"
            )


def check_same_settings(runs: Sequence[Path]) -> None:
    """Raise ValueError unless the runs of a side have the same settings, or the side has one run."""
    if len(runs) < 2:
        return
    records = [read_record(run) for run in runs]
    for run, record in zip(runs, records, strict=True):
        for name in ("settings", "store"):
            if not record.get(name):
                raise ValueError(f"{run} does not record its {name}, so it is compared alone; train it again")
            if record[name] != records[0][name]:
                raise ValueError(
                    f"{runs[0]} and {run} have different {name} (environment.yaml, config.yaml); the runs of "
                    "a side may differ in their seed alone"
                )
    names = [str(run.resolve()) for run in runs]
    if len(set(names)) < len(names):
        raise ValueError("a run is given twice on one side; give each seed once")


def read_record(run: Path) -> dict[str, object]:
    """Return the environment.yaml of a run, {} without one."""
    path = run / "environment.yaml"
    return read_yaml_mapping(path) if path.is_file() else {}


def data_kind(run: Path) -> str:
    """Return the kind of data of a run, as in result tables; "" if it does not say."""
    return KINDS.get(str(read_record(run).get("data", "")), "")


def other_stores(config: Compare) -> str:
    """Return a line if the sides are of different stores, as far as their runs say, "" if of one."""
    sides = [{str(read_record(run).get("store", "")) for run in side} for side in config.sides]
    if sides[0] == sides[1] or not all(name for side in sides for name in side):
        return ""
    a, b = (", ".join(name[:HASH_DIGITS] for name in sorted(side)) for side in sides)
    return (
        f"the runs are of different stores, a of {a} and b of {b}: what they learned from differs, and what "
        f"they read of these stays may; the {config.split} samples and their labels are the same"
    )


def compare(config: Compare) -> pd.DataFrame:
    """Return a row per score: label, metric, a, b, difference (b - a), its 95 % interval, p, n and better."""
    samples = Samples(config.split, config.resamples, config.seed)
    a, b = (samples.score(side) for side in config.sides)
    rows = []
    for key, score in a.scores.items():
        label, metric = key
        if not config.labels and label != "macro":
            continue
        differences, subjects = b.resampled[key] - a.resampled[key], a.subjects[label].deciding
        value_a, value_b = score["value"], b.scores[key]["value"]
        ends = bootstrap.interval(value_b - value_a, differences, subjects)
        span = metric_of(metric).high - metric_of(metric).low
        low, high = np.clip(ends, -span, span).tolist()  # whether 0 lies inside stays as it was
        p = bootstrap.p_value(value_b - value_a, differences, subjects)
        better = better_side(metric, value_b - value_a, p)
        rows.append((*key, value_a, value_b, value_b - value_a, low, high, p, score["n"], better))
    columns = ("label", "metric", "a", "b", "difference", "low", "high", "p", "n", "better")
    return pd.DataFrame(rows, columns=columns)


def better_side(metric: str, difference: float, p: float) -> str:
    """Return which side is better by a score, "a" or "b", or "" if the difference is not significant.

    >>> better_side("auroc", 0.1, 0.01), better_side("brier", 0.1, 0.01), better_side("auroc", 0.1, 0.3)
    ('b', 'a', '')
    """
    if not p < SIGNIFICANT:
        return ""
    return "b" if (difference > 0) == metric_of(metric).higher_is_better else "a"


def print_comparison(config: Compare) -> None:
    """Print the comparison: the sides, their data, a row per score, and which side is better."""
    table = compare(config)
    kinds = [data_kind(run) for side in config.sides for run in side]
    for name, side in zip("ab", config.sides, strict=True):
        print(f"{name}: {', '.join(map(str, side))}")
    print(f"{config.split}, {config.resamples} resamples of subjects; difference = b - a, with 95 % interval")
    if max(map(len, config.sides)) > 1:
        print("a side with several runs has the mean of their scores; intervals are over subjects, not seeds")
    print(data_notice(kinds))
    if note := other_stores(config):
        print(note)
    shown = table.assign(better=table["better"].replace("", f"neither (p {SIGNIFICANT} or more)"))
    print(shown.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
