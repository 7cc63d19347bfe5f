"""Find labels that have only one class in a split; they can be neither trained nor scored."""

from __future__ import annotations

import numpy as np

from tasks.task import Task


def single_class_labels(task: Task, labels: np.ndarray) -> tuple[str, ...]:
    """Return the names of labels with at most one class; `labels` [n, L] as encoded, NaN unknown.

    >>> from tasks import TASKS
    >>> single_class_labels(TASKS["readmission"], np.array([[1.0], [np.nan], [1.0]]))
    ('y_true',)
    """
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
