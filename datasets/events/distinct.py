"""Distinct rows of a table: what is charted repeats, so that few rows of many need be read and cleaned."""

from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa


def distinct_rows(table: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the distinct rows [d] of a table, each where it is first, and which of them each row is [n].

    >>> rows, which = distinct_rows(pl.DataFrame({"item": [7, 7, 8, 7], "text": ["a", "b", "a", "a"]}))
    >>> rows.rows(), which.tolist()
    ([(7, 'a'), (7, 'b'), (8, 'a')], [0, 1, 2, 0])
    """
    key = np.zeros(len(table), np.int64)
    for column in table:
        number, count = _number(column.to_arrow())
        key = key * count + number
    which, count = _number(pa.array(key))
    first = np.empty(count, np.int64)
    first[which[::-1]] = np.arange(len(table))[::-1]  # of the rows of a number the last one written stays
    return table[first], which


def _number(cells: pa.Array) -> tuple[np.ndarray, int]:
    """Return the number [n] of each cell among the distinct ones in their order, and how many there are."""
    encoded = cast(pa.DictionaryArray, cells.dictionary_encode(null_encoding="encode"))
    return encoded.indices.to_numpy(), len(encoded.dictionary)
