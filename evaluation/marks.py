"""Which scores are the best, and which are not significantly worse, by a paired bootstrap over subjects."""

from collections.abc import Mapping

import numpy as np

from evaluation.bootstrap import p_value
from evaluation.compare import SIGNIFICANT
from evaluation.layout import Mark


def best_and_like(
    values: Mapping[int, float], resampled: Mapping[int, np.ndarray], subjects: int, higher_is_better: bool
) -> dict[int, Mark]:
    """Return the marks of the best method, and of those that are not significantly worse.

    `values` are the scores of methods on the same samples, `resampled` their scores in the same resamples
    [R], `subjects` as in `bootstrap.p_value`; a method without resamples is not compared.

    >>> drawn = {0: np.array([0.6, 0.9]), 1: np.array([0.8, 0.6]), 2: np.array([0.1, 0.3])}
    >>> best_and_like({0: 0.75, 1: 0.7, 2: 0.2, 3: 0.6}, drawn, subjects=50, higher_is_better=True)
    {0: 'best', 1: 'like best'}
    """
    if not values:
        return {}
    best = (max if higher_is_better else min)(values, key=lambda method: values[method])
    marks: dict[int, Mark] = {best: "best"}
    for method in values:
        if method != best and method in resampled and best in resampled:
            drawn = resampled[method] - resampled[best]
            if p_value(values[method] - values[best], drawn, subjects) >= SIGNIFICANT:
                marks[method] = "like best"
    return marks
