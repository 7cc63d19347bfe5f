"""Distinct rows, together with which of them each row is, are the table."""

import numpy as np
import polars as pl

from datasets.events.distinct import distinct_rows, number_cells


def distinct_of(table: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    first, which = distinct_rows([number_cells(column)[0] for column in table])
    return table[first], which


def test_rows_are_found_again_in_their_distinct_ones() -> None:
    draw = np.random.default_rng(0).integers(0, 7, (3, 1000))
    texts = pl.Series(["", "a", "ab", "b", "\u00e9", "longer than a few bytes", None])
    table = pl.DataFrame({"item": draw[0], "value": texts[draw[1]], "valuenum": texts[draw[2]]})
    for part in (table, pl.concat([table[:300], table[300:]], rechunk=False), table.head(1)):
        distinct, which = distinct_of(part)
        assert distinct[which].equals(part)
        assert distinct.equals(part.unique(maintain_order=True))


def test_a_table_without_rows_has_no_distinct_ones() -> None:
    distinct, which = distinct_of(pl.DataFrame(schema={"item": pl.Int64, "value": pl.String}))
    assert len(distinct) == len(which) == 0
