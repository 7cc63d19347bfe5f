"""Ranges of rows, one after the other, and the longest of those that begin at the same row."""

from __future__ import annotations

import numpy as np


def concat_ranges(start: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ranges of consecutive numbers one after another: the range's index, and the number.

    >>> [part.tolist() for part in concat_ranges(np.array([7, 20]), np.array([2, 3]))]
    [[0, 0, 1, 1, 1], [7, 8, 20, 21, 22]]
    """
    index = np.repeat(np.arange(len(start)), length)
    first = np.cumsum(length) - length
    return index, np.arange(len(index)) + (start - first)[index]


def longest_of_groups(group: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the longest of each group, and each element's group among these.

    >>> [part.tolist() for part in longest_of_groups(np.array([7, 5, 7]), np.array([2, 9, 3]))]
    [[1, 2], [1, 0, 1]]
    """
    order = np.lexsort((-length, group))
    ordered = group[order]
    is_first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    index = np.empty_like(order)
    index[order] = np.cumsum(is_first) - 1
    return order[is_first], index
