"""Temperature and isotonic scaling against slow references, and labels that they leave alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from evaluation.calibration import calibrate, fit_isotonic, fit_temperature, scale
from evaluation.names import CALIBRATIONS


def cohort(seed: int, slope: float, samples: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities whose logits are `slope` times the true ones."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(0, 1.5, samples)
    truth = (draw.random(samples) < 1 / (1 + np.exp(-logit))).astype(float)
    return truth, 1 / (1 + np.exp(-slope * logit))


def log_loss(truth: np.ndarray, logit: np.ndarray) -> float:
    return float(np.mean([np.log1p(np.exp(z)) - y * z for y, z in zip(truth, logit, strict=True)]))


@pytest.mark.parametrize("slope", [0.3, 1.0, 3.0])
def test_a_temperature_has_the_least_log_loss(slope: float) -> None:
    truth, probability = cohort(0, slope)
    found = fit_temperature(np.append(truth, np.nan), np.append(probability, 0.5))
    logit = np.log(probability / (1 - probability))
    grid = slope * np.geomspace(0.5, 2, 301)
    losses = [log_loss(truth, logit / temperature) for temperature in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3)
    np.testing.assert_allclose(scale(probability, 2.0), 1 / (1 + np.exp(-logit / 2)), rtol=1e-6)
    assert found == pytest.approx(slope, rel=0.35)


def test_scaling_keeps_the_order_and_takes_certain_probabilities() -> None:
    probability = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    scaled = scale(probability, 3.0)
    assert (np.diff(scaled) > 0).all() and np.isfinite(scaled).all() and scaled[2] == 0.5


def slow_isotonic(truth: np.ndarray, probability: np.ndarray) -> dict[float, float]:
    """Pool adjacent violators, block by block."""
    blocks = [[list(truth[probability == p]), [p]] for p in sorted(set(probability))]
    place = 0
    while place + 1 < len(blocks):
        here, there = (np.mean(block[0]) for block in blocks[place : place + 2])
        if here > there:
            blocks[place] = [a + b for a, b in zip(blocks[place], blocks.pop(place + 1), strict=True)]
            place = max(0, place - 1)
        else:
            place += 1
    return {p: float(np.mean(values)) for values, ps in blocks for p in ps}


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=2, max_size=40))
def test_isotonic_scaling_pools_what_falls(rows: list[tuple[int, int]]) -> None:
    truth = np.array([row[0] for row in rows], float)
    probability = np.array([row[1] for row in rows]) / 10
    found = fit_isotonic(truth, probability, probability)
    if len(set(truth)) < 2:
        np.testing.assert_array_equal(found, probability)
        return
    want = slow_isotonic(truth, probability)
    np.testing.assert_allclose(found, [want[p] for p in probability], atol=1e-12)


def test_isotonic_scaling_is_linear_between_and_constant_outside() -> None:
    truth, probability = np.array([0.0, 1.0, np.nan]), np.array([0.2, 0.6, 0.9])
    found = fit_isotonic(truth, probability, np.array([0.0, 0.2, 0.3, 0.6, 1.0]))
    np.testing.assert_allclose(found, [0, 0, 0.25, 1, 1])


@pytest.mark.parametrize("digits", [1, 16])
def test_isotonic_scaling_is_that_of_scikit_learn(digits: int) -> None:
    truth, probability = cohort(3, 2.0)
    probability, others = probability.round(digits), np.random.default_rng(4).random(300)
    reference = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probability, truth)
    np.testing.assert_allclose(
        fit_isotonic(truth, probability, others), reference.predict(others), rtol=1e-12
    )


def test_calibration_is_by_label_and_leaves_one_class_alone() -> None:
    truth, probability = cohort(1, 2.0)
    labels = np.column_stack([truth, np.zeros(400), np.full(400, np.nan)])
    guesses = np.column_stack([probability] * 3)
    others = np.random.default_rng(2).random((7, 3))
    found = calibrate(labels, guesses, others)
    assert tuple(found) == tuple(CALIBRATIONS)
    for values in found.values():
        np.testing.assert_array_equal(values[:, 1:], others[:, 1:])
    np.testing.assert_allclose(
        found["temperature"][:, 0], scale(others[:, 0], fit_temperature(truth, probability))
    )
    np.testing.assert_allclose(found["isotonic"][:, 0], fit_isotonic(truth, probability, others[:, 0]))


def test_equal_probabilities_become_the_frequency() -> None:
    truth, same = np.array([0.0, 0, 0, 1]), np.full(4, 0.9)
    np.testing.assert_allclose(fit_isotonic(truth, same, np.array([0.1, 0.9])), 0.25)
    assert scale(same, fit_temperature(truth, same))[0] == pytest.approx(
        0.5, abs=0.02
    )  # the best that it can
