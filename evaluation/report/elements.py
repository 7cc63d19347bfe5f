"""What tables of the page are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.layout import Mark, cell
from evaluation.report.charts import Bar


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, by what it is sorted (text or a number), a mark, and a bar."""

    text: str
    order: str = ""
    mark: Mark | None = None
    bar: Bar | None = None

    @classmethod
    def score(
        cls, mean: float, low: float, high: float, mark: Mark | None = None, bar: Bar | None = None
    ) -> Cell:
        """Return the cell of a score with its interval."""
        return cls(cell(mean, low, high), "" if math.isnan(mean) else repr(float(mean)), mark, bar)


@dataclass(frozen=True)
class Row:
    """A row of a table, and by what the page filters it."""

    cells: Sequence[Cell]
    method: str = ""
    seeds: Sequence[int] = ()
    target: str = ""  # id of what its first cell leads to


@dataclass(frozen=True)
class Table:
    """A table with a caption; `numeric` columns are aligned right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    numeric: Sequence[bool] = ()
    legend: Sequence[str] = ()
