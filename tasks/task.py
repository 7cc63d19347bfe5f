"""What a prediction task is: its labels, its samples and how it is scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

TaskKind = Literal["binary", "multilabel", "ordinal"]


def _yes_or_no(labels: np.ndarray) -> np.ndarray:
    if not (np.isnan(labels) | (labels == 0) | (labels == 1)).all():
        raise ValueError("one is none of 0, 1 and unknown")
    return labels


@dataclass(frozen=True)
class Task:
    """A prediction task of the benchmark.

    `samples` turns (stays, images, protocol) into a frame with a row a sample: `stay_row`, `end_hours`
    (prediction time, hours since ICU admission), `period_length` (as in the published listfiles), the
    `labels`, and `cxr_row` where the task itself names the image. `encode` turns the listfile's labels [n, L]
    into targets [n, L]: class probabilities for binary and multilabel tasks, the index of the class for an
    ordinal one. NaN stays NaN: unknown, ignored.
    """

    name: str
    kind: TaskKind
    labels: tuple[str, ...]
    monitor: Literal["auroc", "kappa"]
    classes: int
    samples: Callable[[pd.DataFrame, pd.DataFrame, str], pd.DataFrame]
    encode: Callable[[np.ndarray], np.ndarray] = _yes_or_no
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Logits a classifier must give: one a label, or one a class of an ordinal task."""
        return self.classes if self.kind == "ordinal" else len(self.labels)

    @property
    def folder(self) -> str:
        """Name of the task's folder: `in-hospital-mortality` -> `in_hospital_mortality`."""
        return self.name.replace("-", "_")
