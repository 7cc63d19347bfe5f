"""Splits that hold one class are refused where nothing can be learnt, and named where something can."""

import numpy as np
import pytest

from evaluation.scoring import check_learnable, has_scorable_label, single_class_labels
from tasks import TASKS

NAN = np.nan


def two_labels(*rows: tuple[float, float]) -> np.ndarray:
    """Labels of radiology of which all but the first two are unknown."""
    labels = np.full((len(rows), len(TASKS["radiology"].labels)), NAN)
    labels[:, :2] = np.reshape(rows, (-1, 2))
    return labels


def test_a_label_with_one_class_is_named() -> None:
    task = TASKS["radiology"]
    first, second, *others = task.labels
    labels = two_labels((0, 1), (NAN, 0), (0, NAN))
    assert single_class_labels(task, labels) == (first, *others)
    assert check_learnable(task, labels) == (
        f"labels with only one class in the train split: {', '.join((first, *others))}"
    )
    assert has_scorable_label(task, labels)
    assert second not in single_class_labels(task, labels)


@pytest.mark.parametrize("labels", [two_labels((0, 1), (NAN, NAN), (0, 1)), two_labels()])
def test_a_split_with_one_class_of_every_label_teaches_and_judges_nothing(labels: np.ndarray) -> None:
    task = TASKS["radiology"]
    with pytest.raises(
        ValueError, match=r"every label of radiology has only one class in.*extract more stays"
    ):
        check_learnable(task, labels)
    assert not has_scorable_label(task, labels)


def test_bins_of_the_stay_are_classes() -> None:
    task = TASKS["length-of-stay"]
    assert has_scorable_label(task, np.array([[3.0], [4.0]])) and not has_scorable_label(
        task, np.array([[3.0], [3.0]])
    )
    assert check_learnable(task, np.array([[3.0], [4.0]])) == ""
