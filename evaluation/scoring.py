"""Predictions of a task, judged: the scores, the files that keep them, and a table to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.batches import Samples
from evaluation import bootstrap, metrics, results
from evaluation.bootstrap import Resampled, Resamples
from evaluation.metrics import Amounts, Score
from evaluation.subgroups import UNKNOWN
from tasks.task import Task


@dataclass(frozen=True, eq=False)
class ScoringContext:
    """What scores need beyond labels and probabilities.

    people: n rows, subject_id and a column a subgroup to compare (evaluation.subgroups.sample_subgroups);
    resamples: of the bootstrap, 0 for no intervals;
    seed: of its draws; class_means [K]: mean raw label of each class of an
    ordinal task in the train split (see `class_means`), None for other tasks.
    """

    people: pd.DataFrame
    resamples: int
    seed: int
    class_means: np.ndarray | None = None


def compute_scores(
    task: Task, truth: np.ndarray, probability: np.ndarray, amounts: Amounts | None = None
) -> list[Score]:
    """Scores of probabilities [n, outputs] against encoded labels [n, L], NaN where unknown; without
    intervals.
    """
    return metrics.evaluate(task.kind, task.labels, task.groups, truth, probability, amounts)


def class_means(task: Task, train: Samples) -> np.ndarray:
    """What each class of an ordinal task stands for: the mean raw label [K] of its train samples, NaN for one
    that has none.

    The published constants are those of MIMIC-III; these are of the cohort that is learnt from.
    """
    known = ~np.isnan(train.labels[:, 0])
    classes, raw = train.labels[known, 0].astype(int), train.raw_labels[known, 0]
    sums, counts = (np.bincount(classes, weights, task.classes) for weights in (raw, None))
    return np.divide(sums, counts, out=np.full(task.classes, np.nan), where=counts > 0)


def write_report(
    task: Task,
    samples: Samples,
    probability: np.ndarray,
    judging: ScoringContext,
    predictions: Path,
    results_dir: Path,
    told: Mapping[str, object],
) -> str:
    """Writes one split's predictions, adds its scores to <results_dir>/<task>.csv; returns the text to print.

    `told` has the columns of the result rows that say which run and which split this is.
    """
    table = results_dir / f"{task.name}.csv"
    truth = (samples.stay_id, samples.end_hours, task.labels, samples.labels)
    results.write_predictions(predictions, *truth, probability)
    scores, resampled = score_with_intervals(task, samples, probability, judging)
    results.append(table, ({**told, **score} for score in scores))
    lines = [summary(task, scores, judging.people), *_left_out(resampled, judging.resamples)]
    return "\n".join([*lines, f"predictions: {predictions}", f"results: {table}"])


def score_with_intervals(
    task: Task, samples: Samples, probability: np.ndarray, judging: ScoringContext
) -> tuple[list[Score], Resampled]:
    """All scores with their intervals, those of subgroups and their gaps last; and the scores of the whole
    split in every resample ({} without a bootstrap).
    """
    everyone = Resamples.of(judging.people["subject_id"].to_numpy(), judging.resamples, judging.seed)
    scores, resampled = _judge_some(task, samples, probability, judging, everyone)
    scores = bootstrap.with_intervals(scores, resampled) if resampled else scores
    for column in judging.people.columns.drop("subject_id"):
        scores += compare_groups(task, samples, probability, judging, everyone, column)
    return scores, resampled


def compare_groups(
    task: Task,
    samples: Samples,
    probability: np.ndarray,
    judging: ScoringContext,
    everyone: Resamples,
    column: str,
) -> list[Score]:
    """Mean scores of every subgroup, label "macro[sex=F]", and the gaps between the best and the worst,
    label "macro[sex]" and metric "auroc_gap"; all from the same resamples of `everyone`.

    A gap is over the known subgroups that have a value; its n and positives are theirs together.
    """
    group = judging.people[column].to_numpy()
    found: list[Score] = []
    values: Resampled = {}
    for name in sorted(set(group)):
        here = group == name
        scores, resampled = _judge_some(
            task, samples.take(here), probability[here], judging, everyone.take(here)
        )
        label = f"macro[{column}={name}]"
        found += [Score(**score | {"label": label}) for score in scores if score["label"] == "macro"]
        values |= {(label, metric): each for (of, metric), each in resampled.items() if of == "macro"}
    unknown = f"macro[{column}={UNKNOWN}]"
    gaps = list(_gaps(f"macro[{column}]", [score for score in found if score["label"] != unknown], values))
    scores = found + [score for score, _ in gaps]
    values |= {(score["label"], score["metric"]): each for score, each in gaps}
    return bootstrap.with_intervals(scores, values) if judging.resamples else scores


def _judge_some(
    task: Task, samples: Samples, probability: np.ndarray, judging: ScoringContext, resamples: Resamples
) -> tuple[list[Score], Resampled]:
    truth, amounts = samples.labels, None
    if judging.class_means is not None:
        amounts = Amounts(samples.raw_labels[:, 0], judging.class_means)
    scores = compute_scores(task, truth, probability, amounts)
    if not resamples.count:
        return scores, {}
    about = task.kind, task.labels, task.groups
    return scores, bootstrap.evaluate(*about, truth, probability, resamples, amounts)


def _gaps(label: str, scores: Sequence[Score], values: Resampled) -> Iterator[tuple[Score, np.ndarray]]:
    """For each metric, the gap over the subgroups with a value, and that gap in every resample [R]."""
    for metric in dict.fromkeys(score["metric"] for score in scores):
        part = [score for score in scores if score["metric"] == metric and not np.isnan(score["value"])]
        if len(part) < 2:
            continue
        each = np.ptp([values.get((s["label"], metric), np.full(1, np.nan)) for s in part], axis=0)
        n, positives = (sum(score[key] for score in part) for key in ("n", "positives"))
        value = float(np.ptp([score["value"] for score in part]))
        yield Score(label=label, metric=f"{metric}_gap", value=value, n=n, positives=positives), each


def summary(task: Task, scores: Sequence[Score], people: pd.DataFrame | None = None) -> str:
    """A short table: the mean over labels, over each group of labels and of each subgroup of `people`, with
    the interval of each that has one; and the labels in no mean.
    """
    columns = [] if people is None else people.columns.drop("subject_id")
    starts = tuple(f"macro[{column}=" for column in columns)
    names = ("macro", *task.groups)
    rows = [s for s in scores if s["label"] in names or (starts and s["label"].startswith(starts))]
    metric_names = list(dict.fromkeys(row["metric"] for row in rows))
    cells = [("", *metric_names, "n", "positives")]
    for label in dict.fromkeys(row["label"] for row in rows):
        found = {row["metric"]: row for row in rows if row["label"] == label}
        first = found[metric_names[0]]
        values = (_cell(found[name]) for name in metric_names)
        cells.append((label, *values, str(first["n"]), str(first["positives"])))
    widths = [max(10, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in cells]
    missing = [label for label in metrics.left_out(scores) if label in task.labels]
    if missing:
        lines.append(f"in no mean, as the split holds one class of them: {', '.join(missing)}")
    return "\n".join(lines)


def _cell(score: Score) -> str:
    """A value, and the ends of its interval.

    >>> _cell(Score(label="a", metric="auroc", value=0.75, n=9, positives=3, low=0.7, high=0.8))
    '0.7500 [0.7000, 0.8000]'
    """
    ends = f" [{score['low']:.4f}, {score['high']:.4f}]" if "low" in score else ""
    return f"{score['value']:.4f}{ends}"


def _left_out(resampled: Resampled, count: int) -> list[str]:
    """A line on the labels that some resamples, but not all, hold one class of."""
    some = {label: missed for label, missed in bootstrap.undefined(resampled).items() if missed < count}
    named = ", ".join(f"{label} ({missed})" for label, missed in some.items())
    return [f"resamples of {count} without a value, in no interval: {named}"] if some else []
