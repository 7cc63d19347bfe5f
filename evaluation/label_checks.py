"""Labels of which a split holds one class: nothing is learnt from them there, and nothing judged by them."""

from __future__ import annotations

import numpy as np

from tasks.task import Task


def single_class_labels(task: Task, labels: np.ndarray) -> tuple[str, ...]:
    """The labels of a split, [n, L] as encoded, NaN unknown, of which it knows one class at most.

    >>> from tasks import TASKS
    >>> single_class_labels(TASKS["readmission"], np.array([[1.0], [np.nan], [1.0]]))
    ('y_true',)
    """
    known = [np.unique(column[~np.isnan(column)]) for column in labels.T]
    return tuple(name for name, classes in zip(task.labels, known, strict=True) if len(classes) < 2)


def check_learnable(task: Task, labels: np.ndarray) -> str:
    """A line that names the labels that a train split [n, L] cannot teach; "" if it can teach them all.

    ValueError if it can teach none.
    """
    lacking = single_class_labels(task, labels)
    if len(lacking) == len(task.labels):
        raise ValueError(
            f"the train split holds one class of every label of {task.name}, in {len(labels)} samples: there "
            "is nothing to learn; extract more stays, or choose another --task or --data_pairs"
        )
    return f"the train split holds one class of: {', '.join(lacking)}" if lacking else ""


def has_scorable_label(task: Task, labels: np.ndarray) -> bool:
    """Whether some label of a split, [n, L], has the two classes that a score compares."""
    return len(single_class_labels(task, labels)) < len(task.labels)
