"""Distinct rows of a table: what is charted repeats, so that few rows of many need be read and cleaned."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa


def number_cells(cells: pl.Series) -> tuple[np.ndarray, pa.Array]:
    """Return the number [n] of each cell among the distinct ones [d], and these, each where it is first.

    >>> number_cells(pl.Series(["b", "a", None, "b"]))[0].tolist()
    [0, 1, 2, 0]
    """
    return _number(cells.to_arrow())


def distinct_rows(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return where each distinct row is first [d], and which of them each row is [n].

    `columns` are those of a table, each as numbers [n] from 0.

    >>> first, which = distinct_rows([np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0])])
    >>> first.tolist(), which.tolist()
    ([0, 1, 2], [0, 1, 2, 0])
    """
    key = columns[0].astype(np.int64)
    for number in columns[1:]:
        key = key * (number.max(initial=0) + 1) + number
    which, cells = _number(pa.array(key))
    first = np.empty(len(cells), np.int64)
    first[which[::-1]] = np.arange(len(key))[::-1]  # of the rows of a number the last one written stays
    return first, which


def _number(cells: pa.Array) -> tuple[np.ndarray, pa.Array]:
    encoded = cast(pa.DictionaryArray, cells.dictionary_encode(null_encoding="encode"))
    return encoded.indices.to_numpy(), encoded.dictionary
