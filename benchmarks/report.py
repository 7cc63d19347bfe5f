"""Print the newest row of every figure: `python -m benchmarks.report > docs/performance_figures.md`."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.compare import KEY
from benchmarks.record import COLUMNS as ROW_COLUMNS
from benchmarks.record import RESULTS
from evaluation.results import read_rows
from utils.cli import run_cli

COLUMNS = ("unit", "ours", "against", "other", "ratio", "peak_mb")
MEASURED = ("machine", "cores", "versions", "commit", "date")
WIDTH = 118
HEAD = """# Figures

Made by `python -m benchmarks.report`; [performance.md](performance.md) explains them. Data are synthetic.
`ours` is compared with `other`, which `against` names. A ratio above 1 means that ours is better, whatever
the unit.
"""


@dataclass(frozen=True)
class ReportConfig:
    """Print the newest row of every figure as Markdown, with where and when it was measured."""

    results: Path = RESULTS
    """CSV file of measured rows."""


def line(cells: list[str]) -> str:
    """Return a row of a Markdown table.

    >>> line(["a", "b"])
    '| a | b |'
    """
    return f"| {' | '.join(cells)} |"


def section(name: str, rows: pd.DataFrame) -> list[str]:
    """Return the lines of one benchmark: a table for each work, then where it was measured."""
    lines = [f"## `python -m benchmarks.{name}`", ""]
    for work, figures in rows.groupby("work", sort=False):
        table = [list(COLUMNS), ["---"] * len(COLUMNS), *figures[list(COLUMNS)].to_numpy().tolist()]
        lines += [*textwrap.wrap(f"*{work}*", WIDTH), "", *map(line, table), ""]
    machines = [" ".join(row) for row in rows[list(MEASURED)].drop_duplicates().itertuples(index=False)]
    return [*lines, *textwrap.wrap(f"Measured on {'; '.join(machines)}.", WIDTH), ""]


def main(config: ReportConfig) -> None:
    """Print the figures.

    Raises:
        ValueError: nothing was measured yet.
    """
    if not config.results.is_file():
        raise ValueError(f"{config.results}: no such file; python -m benchmarks.all writes it")
    rows = read_rows(config.results, text=ROW_COLUMNS)
    newest = rows.drop_duplicates(list(KEY), keep="last")
    lines = [HEAD]
    for name, figures in newest.groupby("benchmark", sort=False):
        lines += section(name, figures)
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    run_cli(main, ReportConfig)
