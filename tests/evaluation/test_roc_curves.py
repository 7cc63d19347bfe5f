"""ROC and precision-recall curves against scikit-learn's, with ties and weights."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from evaluation.bootstrap import Resamples
from evaluation.roc_curves import GRID, compute_curves, precision_points, roc_points

Rows = list[tuple[int, int, int]]  # truth, probability in ninths, weight
ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=40)


@given(ROWS, st.booleans())
def test_points_are_those_of_scikit_learn(rows: Rows, is_weighted: bool) -> None:
    truth, ninths, weight = np.array(sorted(rows, key=lambda row: -row[1])).T
    weights = weight if is_weighted else None
    total = weight if is_weighted else np.ones(len(rows))
    assume(0 < total @ truth < total.sum())
    false, true, _ = roc_curve(truth, ninths / 9, sample_weight=weights, drop_intermediate=False)
    np.testing.assert_array_equal(roc_points(truth, ninths / 9, weights), (false, true))
    precision, recall, _ = precision_recall_curve(truth, ninths / 9, sample_weight=weights)
    precision[-1] = precision[-2]  # not 1, which no threshold has
    found = precision_points(truth, ninths / 9, weights)
    np.testing.assert_array_equal(found, (recall[::-1], precision[::-1]))


def test_the_mean_curve_is_over_the_labels_with_both_classes_in_any_order_of_rows() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(["b", "a", "one class"], 50)
    truth = draw.integers(0, 2, 150) * (labels != "one class")
    guess = pd.DataFrame({"label": labels, "truth": truth, "probability": draw.random(150).round(1)})
    draws = Resamples.of(np.arange(150), 0, 0)
    curves = compute_curves("AUROC", guess, draws)
    heights = []
    for name in ("b", "a"):
        rows = guess[guess["label"] == name]
        false, true, _ = roc_curve(rows["truth"], rows["probability"], drop_intermediate=False)
        heights.append(np.interp(GRID, false, true))
    assert list(curves.curves) == ["b", "a"] and curves.excluded == 1
    np.testing.assert_allclose(curves.mean, np.mean(heights, axis=0))
    shuffled = guess.sample(frac=1, random_state=0)
    np.testing.assert_allclose(compute_curves("AUROC", shuffled, draws).mean, curves.mean)


def test_labels_may_be_categories_of_which_some_are_unused() -> None:
    labels = pd.Categorical(["a", "a"], categories=["unused", "a"])
    guess = pd.DataFrame({"label": labels, "truth": [0, 1], "probability": [0.2, 0.7]})
    curves = compute_curves("AUPRC", guess, Resamples.of(np.arange(2), 0, 0))
    assert curves.areas == {"a": pytest.approx(1.0)} and curves.excluded == 0
