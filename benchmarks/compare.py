"""Find the ratios that fell between two files of measured rows: `python -m benchmarks.compare OLD NEW`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

from benchmarks.record import COLUMNS, NOT_MEASURED, table
from evaluation.results import read_rows
from utils.cli import run_cli

FALL = 0.1  # largest relative decrease of a ratio that is not reported
KEY = ("benchmark", "work", "against")


@dataclass(frozen=True)
class CompareConfig:
    """Compare the newest row of every figure in two files; exit with 1 if a ratio fell by over 10 %."""

    old: tyro.conf.Positional[Path]
    """CSV file of rows that were measured before, such as benchmarks/results.csv."""
    new: tyro.conf.Positional[Path]
    """CSV file of rows that were measured now."""


class Change(NamedTuple):
    """A figure's ratio in both files; None if it was not measured or is missing."""

    key: tuple[str, ...]
    old: float | None
    new: float | None

    @property
    def change(self) -> float | None:
        """Relative change of the ratio, negative if it fell.

        >>> Change(("images",), 2.0, 1.5).change
        -0.25
        """
        return None if self.old is None or self.new is None else self.new / self.old - 1

    @property
    def fell(self) -> bool:
        """Whether the ratio fell by more than FALL."""
        return self.change is not None and self.change < -FALL

    def cells(self) -> tuple[str, ...]:
        """Return its row of the table."""
        ratios = [NOT_MEASURED if value is None else f"{value:.4g}" for value in (self.old, self.new)]
        change = "" if self.change is None else f"{self.change:+.0%}"
        return *self.key, *ratios, change, "fell" if self.fell else ""


def newest(path: Path) -> dict[tuple[str, ...], float | None]:
    """Return {(benchmark, work, against): ratio in its last row}.

    Raises:
        ValueError: the file is missing or has other columns.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; python -m benchmarks.all writes one")
    rows = read_rows(path, text=COLUMNS)
    missing = [name for name in (*KEY, "ratio") if name not in rows]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; give a file of benchmarks/record.py")
    ratios = {tuple(key): ratio for *key, ratio in rows[[*KEY, "ratio"]].itertuples(index=False)}
    return {key: None if ratio == NOT_MEASURED else float(ratio) for key, ratio in ratios.items()}


def compare(old: Path, new: Path) -> list[Change]:
    """Return the change of every figure of either file, in the order of the old one."""
    before, after = newest(old), newest(new)
    return [Change(key, before.get(key), after.get(key)) for key in {**before, **after}]


def main(config: CompareConfig) -> None:
    """Print the table; exit with status 1 if a ratio fell."""
    changes = compare(config.old, config.new)
    print(table([(*KEY, "old", "new", "change", ""), *(change.cells() for change in changes)]))
    fell = sum(change.fell for change in changes)
    known = sum(change.change is not None for change in changes)
    print(f"{fell} of {known} ratios that both files have fell by over {FALL:.0%}")
    sys.exit(1 if fell else 0)


if __name__ == "__main__":
    run_cli(main, CompareConfig)
