"""Predictions of a task, judged: the scores, the files that keep them, and a table to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.batches import Samples
from tasks.task import Task
from utils import metrics, results


def judge(task: Task, truth: np.ndarray, probability: np.ndarray) -> list[metrics.Score]:
    """Scores of probabilities [n, outputs] against encoded labels [n, L], NaN where unknown."""
    return metrics.evaluate(task.kind, task.labels, task.groups, truth, probability)


def write_report(
    task: Task,
    samples: Samples,
    probability: np.ndarray,
    predictions: Path,
    results_dir: Path,
    told: Mapping[str, object],
) -> str:
    """Writes one split's predictions, adds its scores to <results_dir>/<task>.csv; returns the text to print.

    `told` has the columns of the result rows that say which run and which split this is.
    """
    table = results_dir / f"{task.name}.csv"
    scores = judge(task, samples.labels, probability)
    truth = (samples.stay_id, samples.end_hours, task.labels, samples.labels)
    results.write_predictions(predictions, *truth, probability)
    results.append(table, ({**told, **score} for score in scores))
    return f"{summary(task, scores)}\npredictions: {predictions}\nresults: {table}"


def summary(task: Task, scores: Sequence[metrics.Score]) -> str:
    """A short table: the mean over labels and over each group of labels, and the labels in no mean."""
    rows = [score for score in scores if score["label"] in ("macro", *task.groups)]
    names = list(dict.fromkeys(row["metric"] for row in rows))
    lines = ["".join(f"{name:>10}" for name in ("", *names, "n", "positives"))]
    for label in dict.fromkeys(row["label"] for row in rows):
        found = {row["metric"]: row for row in rows if row["label"] == label}
        cells = "".join(f"{found[name]['value']:10.4f}" for name in names)
        lines.append(f"{label:>10}{cells}{found[names[0]]['n']:10d}{found[names[0]]['positives']:10d}")
    missing = [label for label in metrics.left_out(scores) if label in task.labels]
    if missing:
        lines.append(f"in no mean, as the split holds one class of them: {', '.join(missing)}")
    return "\n".join(lines)


def made_of(manifest: Mapping[str, object]) -> str:
    """What the numbers of a store are about: patients, or synthetic data without clinical meaning.

    >>> made_of({"synthetic": False, "synthetic_images": True})
    'real records with synthetic X-rays'
    """
    if manifest["synthetic"]:
        return "synthetic data"
    return "real records with synthetic X-rays" if manifest["synthetic_images"] else "real data"
