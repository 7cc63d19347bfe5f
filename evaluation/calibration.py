"""Probabilities that are calibrated on the validation split: temperature scaling and isotonic regression."""

import numpy as np
import scipy  # whose parts are imported where they are first used

from evaluation.metrics import known

LOG_TEMPERATURES = (-4.0, 4.0)  # natural logarithms of the coldest and the hottest temperature that is tried
NEAREST = 1e-12  # probabilities are at least so far from 0 and 1 before their logits are taken


def fit_temperature(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the temperature that divides the logits for the least log loss (Guo et al. 2017).

    `truth` [n] is 0, 1 or NaN (ignored), `probability` [n]. 1 if the known truth has one class, for which the
    loss has no minimum. Above 1, probabilities are too extreme; below 1, too timid.

    >>> probability = np.repeat([0.1, 0.9], 4)  # of which one in four is wrong
    >>> round(fit_temperature(np.array([1, 0, 0, 0, 0, 1, 1, 1]), probability), 3)
    2.0
    """
    is_positive, probability = known(truth, probability)
    if is_positive.all() or not is_positive.any():
        return 1.0
    margins = np.where(is_positive, 1, -1) * _logits(probability)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -margins / np.exp(log_temperature)).mean())

    options = {"bounds": LOG_TEMPERATURES, "method": "bounded", "options": {"xatol": 1e-6}}
    found = scipy.optimize.minimize_scalar(loss, **options)
    return float(np.exp(found.x))


def scale(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities whose logits are divided by a temperature; their order stays the same.

    >>> scale(np.array([0.1, 0.5, 0.9]), 2.0).round(2).tolist()
    [0.25, 0.5, 0.75]
    """
    return np.asarray(scipy.special.expit(_logits(probability) / temperature))


def fit_isotonic(truth: np.ndarray, probability: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return `others` mapped by the rising function of least squared error (Zadrozny & Elkan 2002).

    It is fitted to `truth` [n], 0, 1 or NaN (ignored), and `probability` [n]; between their probabilities it
    is linear, and outside constant. `others` [m] are returned as they are if the known truth has one class.
    """
    is_positive, probability = known(truth, probability)
    if is_positive.all() or not is_positive.any():
        return others
    distinct, place, count = np.unique(probability, return_inverse=True, return_counts=True)
    frequency = np.bincount(place, is_positive) / count
    rising = scipy.optimize.isotonic_regression(frequency, weights=count).x
    return np.asarray(np.interp(others.astype(np.float64), distinct, rising))


def calibrate(truth: np.ndarray, probability: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probabilities `others` [m, L] calibrated in each way of CALIBRATIONS, each [m, L].

    Both are fitted, label by label, to the validation split: `truth` [n, L] and `probability` [n, L]. A label
    with one class there is left as it is.
    """
    columns = list(zip(truth.T, probability.T, others.T, strict=True))
    scaled = [
        scale(other, fit_temperature(*pair)) if has_both(pair[0]) else other for *pair, other in columns
    ]
    isotonic = [fit_isotonic(*column) for column in columns]
    return {"temperature": np.column_stack(scaled), "isotonic": np.column_stack(isotonic)}


def has_both(truth: np.ndarray) -> bool:
    """Return whether a label [n] of 0, 1 and NaN has both classes."""
    return bool((truth == 0).any() and (truth == 1).any())


def _logits(probability: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.special.logit(np.clip(probability.astype(np.float64), NEAREST, 1 - NEAREST)))
