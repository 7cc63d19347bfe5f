"""The newest row of every figure as Markdown: python -m benchmarks.report > docs/performance_figures.md."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.compare import KEY
from benchmarks.record import RESULTS
from utils.cli import run_cli

SHOWN = ("work", "unit", "ours", "against", "other", "ratio", "peak_mb")
HEAD = """# Figures

Made by `python -m benchmarks.report`. What they mean stands in [performance.md](performance.md). Data are
synthetic. A ratio above 1 is better than what stands beside it, in any unit.
"""
MEASURED = ("machine", "cores", "versions", "commit", "date")


@dataclass(frozen=True)
class ReportConfig:
    """Print the newest row of every figure, a table a benchmark, with where and when it was measured."""

    results: Path = RESULTS
    """File of measured rows."""


def line(cells: list[str]) -> str:
    """A row of a Markdown table.

    >>> line(["a", "b"])
    '| a | b |'
    """
    return f"| {' | '.join(cells)} |"


def section(name: str, rows: pd.DataFrame) -> list[str]:
    """Lines about a benchmark."""
    places = [" ".join(row) for row in rows[list(MEASURED)].drop_duplicates().itertuples(index=False)]
    table = [list(SHOWN), ["---"] * len(SHOWN), *rows[list(SHOWN)].to_numpy().tolist()]
    where = f"Measured on {'; '.join(places)}."
    return [f"## `python -m benchmarks.{name}`", "", *map(line, table), "", where, ""]


def main(config: ReportConfig) -> None:
    """Print it; ValueError if nothing was measured yet."""
    if not config.results.is_file():
        raise ValueError(f"{config.results}: there is no such file; python -m benchmarks.all makes one")
    rows = pd.read_csv(config.results, dtype=str, keep_default_na=False)
    newest = rows.drop_duplicates(list(KEY), keep="last")
    lines = [HEAD]
    for name, own in newest.groupby("benchmark", sort=False):
        lines += section(name, own)
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    run_cli(main, ReportConfig)
