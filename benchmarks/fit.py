"""Fit lines to measured costs: how a cost grows with size, and what it would be at another size."""

from collections.abc import Sequence

import numpy as np


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return p of the power law cost = c * size^p that fits best; 1 is linear growth.

    >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def at_size(sizes: Sequence[float], costs: Sequence[float], size: float) -> float:
    """Return the cost at another size, on the straight line that fits the measured costs best.

    >>> round(at_size([1, 2], [3.0, 5.0], 10), 6)
    21.0
    """
    slope, start = np.polyfit(sizes, costs, 1)
    return float(start + slope * size)
