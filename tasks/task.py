"""A prediction task: its labels, its samples and how it is scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

TaskKind = Literal["binary", "multilabel", "ordinal"]


def check_binary(labels: np.ndarray) -> np.ndarray:
    """Return labels as they are.

    Raises:
        ValueError: One is not 0, 1 or NaN.
    """
    if not (np.isnan(labels) | (labels == 0) | (labels == 1)).all():
        raise ValueError("labels must be 0, 1 or NaN")
    return labels


@dataclass(frozen=True)
class Task:
    """A prediction task of the benchmark.

    Attributes:
        name: As on the command line, and of its folder in a store.
        kind: What the labels are.
        labels: Names of the labels.
        monitor: The score that chooses the best epoch.
        classes: Number of classes of a label.
        samples: Turns (stays, images, protocol) into a table with a row per sample: `stay_row`, `end_hours`
            (prediction time, hours since ICU admission), `period_length` (as in the published listfiles), the
            labels, and `cxr_row` if the task itself names the image.
        encode: Turns the listfile's labels [n, L] into targets [n, L]: class probabilities for binary and
            multilabel tasks, the index of the class for an ordinal one. NaN stays NaN: unknown, ignored.
        groups: Groups of labels that are also scored together.
    """

    name: str
    kind: TaskKind
    labels: tuple[str, ...]
    monitor: Literal["auroc", "kappa"]
    classes: int
    samples: Callable[[pd.DataFrame, pd.DataFrame, str], pd.DataFrame]
    encode: Callable[[np.ndarray], np.ndarray] = check_binary
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Number of logits of a classifier: one per label, or one per class of an ordinal task."""
        return self.classes if self.kind == "ordinal" else len(self.labels)

    @property
    def folder(self) -> str:
        """Name of the task's folder: `in-hospital-mortality` -> `in_hospital_mortality`."""
        return self.name.replace("-", "_")
