"""Score the predictions of a task: which labels can be scored, result rows, and a table to print."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.samples import Samples
from evaluation import bootstrap, metrics, results
from evaluation.bootstrap import Resampled, Resamples, Subjects
from evaluation.debias import sizes_in_resamples, spread_of
from evaluation.metrics import ContinuousTarget, Score
from evaluation.names import DETAILS
from evaluation.predictions import write_predictions
from evaluation.subgroups import SMALLEST_GROUP, UNKNOWN
from evaluation.summaries import Summary, summary_path
from tasks.task import Task
from utils.lazy_pandas import pd

NAMED_LABELS = 5  # of those without a value in some resamples


def single_class_labels(task: Task, labels: np.ndarray) -> tuple[str, ...]:
    """Return the names of labels with at most one class; `labels` [n, L] as encoded, NaN unknown."""
    known = [np.unique(column[~np.isnan(column)]) for column in labels.T]
    return tuple(name for name, classes in zip(task.labels, known, strict=True) if len(classes) < 2)


def check_learnable(task: Task, labels: np.ndarray) -> str:
    """Return a warning that names the labels with one class in a train split [n, L], "" if there are none.

    Raises:
        ValueError: every label has one class.
    """
    single = single_class_labels(task, labels)
    if len(single) == len(task.labels):
        raise ValueError(
            f"every label of {task.name} has only one class in the {len(labels)} train samples, so there is "
            "nothing to learn; extract more stays, or choose another --task or --data_pairs"
        )
    return f"labels with only one class in the train split: {', '.join(single)}" if single else ""


def has_scorable_label(task: Task, labels: np.ndarray) -> bool:
    """Return whether some label [n, L] has the two classes that a score needs."""
    return len(single_class_labels(task, labels)) < len(task.labels)


@dataclass(frozen=True, eq=False)
class ScoringContext:
    """What scores of n samples need beyond labels and probabilities."""

    subgroups: pd.DataFrame  # n rows, a column per variable, of evaluation.subgroups.sample_subgroups
    resamples: int  # of the bootstrap, 0 for no intervals
    seed: int  # of the bootstrap; summaries.RESAMPLE_SEED, unless resamples are compared with no other run's
    class_means: np.ndarray | None = None  # [K], for an ordinal task (see `class_means`)
    calibrated: Mapping[str, np.ndarray] = field(default_factory=dict)  # probabilities [n, L] by calibration


def compute_scores(
    task: Task,
    truth: np.ndarray,
    probability: np.ndarray,
    continuous: ContinuousTarget | None = None,
    subject: np.ndarray | None = None,
) -> list[Score]:
    """Score probabilities [n, outputs] against encoded labels [n, L], NaN if unknown, without intervals.

    `subject` [n] is for the calibration error (see `metrics.evaluate`).
    """
    return metrics.evaluate(task.kind, task.labels, task.groups, truth, probability, continuous, subject)


def monitor_score(task: Task, truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the task's monitor, the mean over its labels: what `compute_scores` gives, and nothing else.

    A probe asks for it after each of its epochs, and the calibration error takes many times as long.
    """
    if task.kind == "ordinal":
        return metrics.headline(compute_scores(task, truth, probability))[task.monitor]
    found = metrics.areas(truth, probability).auroc
    return float(np.mean(defined)) if len(defined := found[~np.isnan(found)]) else math.nan


def mean_scores(
    task: Task, truth: np.ndarray, probability: np.ndarray, subject: np.ndarray | None = None
) -> dict[str, float]:
    """Return the mean over the labels of each metric: the headline of what `compute_scores` gives, sooner."""
    return metrics.headline_of(task.kind, task.labels, truth, probability, subject)


def class_means(task: Task, train: Samples) -> np.ndarray:
    """Return the mean raw label [K] of each class of an ordinal task in the train split, NaN if empty."""
    known = ~np.isnan(train.labels[:, 0])  # the published constants are those of MIMIC-III
    classes, raw = train.labels[known, 0].astype(int), train.raw_labels[known, 0]
    sums, counts = np.bincount(classes, raw, task.classes), np.bincount(classes, None, task.classes)
    return metrics.quotient(sums, counts)


def write_report(
    task: Task,
    samples: Samples,
    probability: np.ndarray,
    context: ScoringContext,
    predictions: Path,
    results_dir: Path,
    run_columns: Mapping[str, object],
) -> str:
    """Write a split's predictions and their summary, append its scores to a table, and return a report.

    The table is <results_dir>/<task>.csv; `run_columns` are its columns that describe the run and the split.
    """
    rows = write_predictions(predictions, samples, task.labels, probability, context.calibrated)
    scores, resampled = score_with_intervals(task, samples, probability, context)
    of_task = task.kind, task.labels, task.groups, samples.labels
    subjects = bootstrap.subjects_of(*of_task, samples.subject_id)["macro"]
    Summary.of(rows, resampled, subjects.deciding).write(summary_path(predictions))
    table = results_dir / f"{task.name}.csv"
    results.append(table, ({**run_columns, **score} for score in scores))
    note = _undefined_note(resampled, context.resamples, _labels_with_intervals(scores))
    lines = [summary(task, scores, list(context.subgroups)), *note]
    return "\n".join([*lines, f"predictions: {predictions}", f"results: {table}"])


def score_with_intervals(
    task: Task, samples: Samples, probability: np.ndarray, context: ScoringContext
) -> tuple[list[Score], Resampled]:
    """Return scores with intervals, subgroups last, and the whole split's in every resample, if any."""
    resamples = Resamples.of(samples.subject_id, context.resamples, context.seed)
    whole = _score(task, samples, probability, context, resamples)
    scores = whole.with_intervals()
    for way, other in context.calibrated.items():
        scores += _score_calibration(task, samples, other, resamples, way).with_intervals()
    for variable in context.subgroups:
        scores += compare_subgroups(task, samples, probability, context, resamples, variable)
    return scores, whole.resampled


def compare_subgroups(
    task: Task,
    samples: Samples,
    probability: np.ndarray,
    context: ScoringContext,
    resamples: Resamples,
    variable: str,
) -> list[Score]:
    """Return the mean scores of every subgroup, and the gaps between the best and the worst.

    A subgroup has the label "macro[sex=F]", a gap "macro[sex]" and the metric "auroc_gap". One of fewer than
    SMALLEST_GROUP subjects has rows without a value. Gaps are over the known subgroups that have a value, and
    so are their n and positives.
    """
    subgroup = context.subgroups[variable].to_numpy()
    parts: list[Scored] = []
    scores: list[Score] = []
    for name in sorted(set(subgroup)):
        mask = subgroup == name
        label = f"macro[{variable}={name}]"
        part = _score(task, samples.take(mask), probability[mask], context, resamples.take(mask))
        part = part.only("macro", label)
        if len(np.unique(samples.subject_id[mask])) < SMALLEST_GROUP:
            scores += [Score(**score | {"value": np.nan}) for score in part.scores]
            continue
        scores += part.with_intervals()
        if name != UNKNOWN:
            parts.append(part)
    return scores + list(_gaps(f"macro[{variable}]", parts))


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores, the same in every resample, if there are any, and the subjects that decide them, by label."""

    scores: list[Score]
    resampled: Resampled
    subjects: Mapping[str, Subjects]

    def with_intervals(self) -> list[Score]:
        """Return the scores with their intervals."""
        return bootstrap.with_intervals(self.scores, self.resampled, self.subjects)

    def only(self, label: str, name: str) -> Scored:
        """Return the scores of one label under another name."""
        return Scored(
            [Score(**score | {"label": name}) for score in self.scores if score["label"] == label],
            {(name, metric): values for (of, metric), values in self.resampled.items() if of == label},
            {name: self.subjects[label]},
        )


def _score(
    task: Task, samples: Samples, probability: np.ndarray, context: ScoringContext, resamples: Resamples
) -> Scored:
    means, truth = context.class_means, samples.labels
    continuous = None if means is None else ContinuousTarget(samples.raw_labels[:, 0], means)
    scores = compute_scores(task, truth, probability, continuous, samples.subject_id)
    of_task = task.kind, task.labels, task.groups, truth
    subjects = bootstrap.subjects_of(*of_task, samples.subject_id)
    if not resamples.count:
        return Scored(scores, {}, subjects)
    return Scored(scores, bootstrap.evaluate(*of_task, probability, resamples, continuous), subjects)


def _score_calibration(
    task: Task, samples: Samples, probability: np.ndarray, resamples: Resamples, way: str
) -> Scored:
    """Return the Brier score and the calibration error of calibrated probabilities, called so."""
    own = ("brier", "ece")
    of_task = task.kind, task.labels, task.groups, samples.labels
    scores = compute_scores(task, samples.labels, probability, subject=samples.subject_id)
    resampled: Resampled = {}
    if resamples.count:
        resampled = bootstrap.evaluate(*of_task, probability, resamples, ranking=False)
    return Scored(
        [
            Score(**score | {"metric": f"{score['metric']}_{way}"})
            for score in scores
            if score["metric"] in own
        ],
        {(label, f"{metric}_{way}"): v for (label, metric), v in resampled.items() if metric in own},
        bootstrap.subjects_of(*of_task, samples.subject_id),
    )


def _gaps(label: str, parts: Sequence[Scored]) -> Iterator[Score]:
    """Yield, for each metric, the gap over the subgroups with a value, with its interval."""
    names = dict.fromkeys(score["metric"] for part in parts for score in part.scores)
    for metric in [name for name in names if name not in DETAILS]:
        defined = [
            (score, part)
            for part in parts
            for score in part.scores
            if score["metric"] == metric and not np.isnan(score["value"])
        ]
        if len(defined) < 2:
            continue
        values = np.array([score["value"] for score, _ in defined])
        n, positives = (sum(score[key] for score, _ in defined) for key in ("n", "positives"))
        gap = Score(
            label=label, metric=f"{metric}_gap", value=float(np.ptp(values)), n=n, positives=positives
        )
        if not all(part.resampled for _, part in defined):
            yield gap
            continue
        drawn = [part.resampled[score["label"], metric] for score, part in defined]
        subjects = min(part.subjects[score["label"]] for score, part in defined)  # of the smallest
        sizes = sizes_in_resamples(values, np.stack(drawn, axis=1), spread_of)
        yield from bootstrap.with_intervals([gap], {(label, gap["metric"]): sizes}, {label: subjects})


def summary(task: Task, scores: Sequence[Score], subgroup_variables: Sequence[str] = ()) -> str:
    """Return a short table of means over labels, groups and subgroups, and the labels excluded from them."""
    names = ("macro", *task.groups)
    prefixes = tuple(f"macro[{variable}=" for variable in subgroup_variables)
    rows = [s for s in scores if s["label"] in names or s["label"].startswith(prefixes)]
    metric_names = list(dict.fromkeys(row["metric"] for row in rows if row["metric"] not in DETAILS))
    cells = [("", *metric_names, "n", "positives")]
    for label in dict.fromkeys(row["label"] for row in rows):
        by_metric = {row["metric"]: row for row in rows if row["label"] == label}
        first = by_metric[metric_names[0]]
        values = (_cell(by_metric[name]) for name in metric_names)
        cells.append((label, *values, str(first["n"]), str(first["positives"])))
    widths = [max(10, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in cells]
    if any("too small" in cell for row in cells for cell in row):
        lines.append(f"too small: fewer than {SMALLEST_GROUP} subjects, and in no gap")
    if any(cell == "one class" for row in cells for cell in row):
        lines.append("one class: all known labels are alike there, so none has a score, and n counts none")
    excluded = [label for label in metrics.undefined_labels(scores) if label in task.labels]
    if excluded:
        lines.append(f"excluded from the means (one class in this split): {', '.join(excluded)}")
    return "\n".join(lines)


def _cell(score: Score) -> str:
    """Format a value and its interval, or say why there is none: a subgroup without a value, or one class.

    >>> _cell(Score(label="a", metric="auroc", value=0.75, n=9, positives=3, low=0.7, high=0.8))
    '0.7500 [0.7000, 0.8000]'
    """
    if np.isnan(score["value"]):
        return "too small" if score["n"] else "one class"
    interval = f" [{score['low']:.4f}, {score['high']:.4f}]" if "low" in score else ""
    return f"{score['value']:.4f}{interval}"


def _labels_with_intervals(scores: Sequence[Score]) -> set[str]:
    return {score["label"] for score in scores if "low" in score}


def _undefined_note(resampled: Resampled, count: int, labels: Collection[str]) -> list[str]:
    """Return a line on the labels with one class in some resamples, but not in all; names those with most.

    `labels` are those with an interval, which alone are named.

    >>> _undefined_note({("a", "auroc"): np.array([0.5, np.nan, 0.6, 0.7])}, 4, ["a"])
    ['resamples of 4 without a value, which the intervals ignore: a (1)']
    """
    counts = bootstrap.undefined(resampled)
    undefined = {label: n for label, n in counts.items() if n < count and label in labels}
    most = sorted(undefined.items(), key=lambda item: -item[1])[:NAMED_LABELS]
    labels = ", ".join(f"{label} ({n})" for label, n in most)
    others = f" and fewer in {len(undefined) - len(most)} others" if len(undefined) > len(most) else ""
    if not most:
        return []
    return [f"resamples of {count} without a value, which the intervals ignore: {labels}{others}"]
