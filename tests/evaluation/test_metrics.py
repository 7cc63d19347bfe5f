"""Metrics agree with scikit-learn, under ties and on any data."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from evaluation import metrics
from evaluation.metrics import Score

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=60).filter(
    lambda pairs: len({truth for truth, _ in pairs}) == 2
)
BINS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40)


@given(PAIRS)
def test_areas_equal_the_reference(pairs: list[tuple[int, int]]) -> None:
    truth, score = np.array(pairs, float).T
    assert metrics.auroc(truth, score) == pytest.approx(reference.roc_auc_score(truth, score), abs=1e-12)
    assert metrics.auprc(truth, score) == pytest.approx(
        reference.average_precision_score(truth, score), abs=1e-12
    )
    assert metrics.brier(truth, score / 8) == pytest.approx(reference.brier_score_loss(truth, score / 8))


@given(PAIRS)
def test_auroc_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    truth, score = np.array(pairs, float).T
    gap = np.subtract.outer(score[truth == 1], score[truth == 0])
    assert metrics.auroc(truth, score) == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean())
    assert metrics.auroc(1 - truth, score) == pytest.approx(1 - metrics.auroc(truth, score))


@given(BINS)
def test_kappa_equals_the_reference(bins: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(bins).T
    got = metrics.kappa(truth.astype(float), predicted, 5)
    if len(set(truth) | set(predicted)) == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(
            reference.cohen_kappa_score(truth, predicted, labels=range(5), weights="linear"), abs=1e-12
        )


def test_calibration_error_of_two_bins() -> None:
    truth, probability = np.array([0.0, 1, 1, 1, np.nan]), np.array([0.1, 0.15, 0.95, 1.0, 0.5])
    assert metrics.calibration_error(truth, probability) == pytest.approx((0.75 + 0.05) / 4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("measure", [metrics.auroc, metrics.auprc])
def test_one_class_has_no_area_and_unknown_labels_do_not_count(measure: object) -> None:
    for truth in (0.0, 1.0):
        assert math.isnan(measure(np.full(2, truth), np.array([0.1, 0.2])))
    assert math.isnan(measure(np.array([np.nan]), np.array([0.1])))
    known = measure(np.array([0.0, 1, 1]), np.array([0.2, 0.1, 0.4]))
    assert measure(np.array([0, 1, np.nan, 1]), np.array([0.2, 0.1, 0.0, 0.4])) == known


def test_what_is_no_label_or_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^1 of 2 scores are NaN; the model has diverged$"):
        metrics.auroc(np.array([0.0, 1.0]), np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match=r"^labels must be 0, 1 or NaN, not \[2. 3. 4.\]$"):
        metrics.auroc(np.array([0.0, 5, 4, 3, 2]), np.zeros(5))
    with pytest.raises(ValueError, match=r"^truth \(2, 1\) and score \(2, 1\) must both be \[n\]$"):
        metrics.auroc(np.zeros((2, 1)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"^truth \(2,\) and score \(3,\) must both be \[n\]$"):
        metrics.auroc(np.zeros(2), np.zeros(3))


@pytest.mark.filterwarnings("error")
def test_nothing_known_has_no_score() -> None:
    nothing = np.array([np.nan]), np.array([0.0])
    for measure in (metrics.auroc, metrics.auprc, metrics.brier, metrics.calibration_error, metrics.accuracy):
        assert math.isnan(measure(*nothing))
    assert math.isnan(metrics.kappa(*nothing, 3))


def value_of(scores: list[Score], label: str, metric: str) -> float:
    return next(s["value"] for s in scores if (s["label"], s["metric"]) == (label, metric))


def test_a_label_with_one_class_is_left_out_of_all_means_and_named() -> None:
    source = np.random.default_rng(0)
    truth = source.integers(0, 2, (50, 3)).astype(float)
    truth[:, 1] = 0
    truth[:10, 2] = np.nan
    probability = source.random((50, 3))
    groups = {"acute": ("a", "b"), "empty": ("b",)}
    scores = metrics.evaluate("multilabel", ("a", "b", "c"), groups, truth, probability)
    assert metrics.undefined_labels(scores) == ["b", "empty"]
    for metric in ("auroc", "auprc", "brier", "ece", "ece_plugin"):
        a, c = (value_of(scores, label, metric) for label in "ac")
        if metric != "ece":  # whose mean is of both labels together: tests/evaluation/test_debias.py
            assert value_of(scores, "macro", metric) == pytest.approx((a + c) / 2)
        assert value_of(scores, "acute", metric) == pytest.approx(a)
    counts = {s["label"]: (s["n"], s["positives"]) for s in scores}
    assert counts["b"] == (50, 0) and counts["c"] == (40, int(np.nansum(truth[:, 2])))
    assert counts["macro"] == (90, counts["a"][1] + counts["c"][1]) and counts["acute"] == counts["a"]
    assert counts["empty"] == (0, 0) and counts["a"] == (50, int(truth[:, 0].sum()))
    assert metrics.headline(scores).keys() == {"auroc", "auprc", "brier", "ece"}


def test_ordinal_scores_take_the_likeliest_bin() -> None:
    truth = np.array([[0.0], [1], [2], [np.nan]])
    scores = metrics.evaluate("ordinal", ("los",), {}, truth, np.eye(3)[[0, 1, 1, 2]])
    assert metrics.headline(scores)["accuracy"] == pytest.approx(2 / 3)
    want = reference.cohen_kappa_score([0, 1, 2], [0, 1, 1], weights="linear")
    assert value_of(scores, "los", "kappa") == pytest.approx(want)
    assert {(s["label"], s["n"], s["positives"]) for s in scores} == {("los", 3, 0), ("macro", 3, 0)}


def test_kinds_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^kind must be one of binary, multilabel, ordinal, not 'regression'$"
    ):
        metrics.evaluate("regression", ("a",), {}, np.zeros((2, 1)), np.zeros((2, 1)))
    misfits = {  # kind: shapes of truth and probability, and the columns that they should have
        "multilabel": [((2, 1), (2, 1), (2, 2)), ((3, 2), (2, 2), (2, 2)), ((2, 2), (2, 1), (2, 2))],
        "ordinal": [((2, 1), (2, 3), (2, 3)), ((3, 2), (2, 3), (2, 3))],
    }
    for kind, cases in misfits.items():
        for truth, probability, width in cases:
            message = re.escape(f"truth {truth} and probability {probability} do not fit {width} columns")
            with pytest.raises(ValueError, match=f"^{message}$"):
                metrics.evaluate(kind, ("a", "b"), {}, np.zeros(truth), np.zeros(probability))


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_brier_and_calibration_equal_a_slow_loop(rows: list[tuple[int, float]]) -> None:
    truth, probability = np.array(rows, float).T
    bins: dict[int, list[float]] = {}
    for known, guess in rows:
        bins.setdefault(min(int(guess * 10), 9), []).append(guess - known)
    want = sum(abs(sum(gaps)) for gaps in bins.values()) / len(rows)
    assert metrics.calibration_error(truth, probability) == pytest.approx(want, abs=1e-12)
    want = sum((guess - known) ** 2 for known, guess in rows) / len(rows)
    assert metrics.brier(truth, probability) == pytest.approx(want, abs=1e-12)


def test_errors_in_hours_are_those_of_the_likeliest_bin_that_stands_for_some() -> None:
    amounts = metrics.ContinuousTarget(np.array([9.9, 50, np.nan]), np.array([12.0, 40, np.nan]))
    guess = np.array([[0.9, 0.1, 0], [0.1, 0.2, 0.7], [1, 0, 0]])
    truth = np.array([[0.0], [2], [np.nan]])
    scores = metrics.evaluate("ordinal", ("los",), {}, truth, guess, amounts)
    assert value_of(scores, "macro", "mad") == pytest.approx((2.1 + 10) / 2)
    assert value_of(scores, "los", "mse") == pytest.approx((2.1**2 + 100) / 2)
    assert value_of(scores, "los", "mape") == pytest.approx(100 * (2.1 / 10 + 10 / 50.1) / 2)
    mad = [(s["label"], s["n"], s["positives"]) for s in scores if s["metric"] == "mad"]
    assert mad == [("los", 2, 0), ("macro", 2, 0)]
