"""Rows of benchmarks/results.csv: what was measured, on which machine and with which versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from evaluation.results import append_rows
from utils.git import commit
from utils.machine import available_cpus

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = (
    "benchmark", "work", "unit", "ours", "against", "other", "ratio", "peak_mb", "machine", "cores",
    "versions", "commit", "date",
)  # fmt: skip
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """A measured figure and what it is compared with, in the same unit.

    work: what was done. unit: "s" and the like, of which less is better, or a rate such as "rows/s". ours and
    other: None if not measured. against: what `other` is, such as "zcat" or "published". peak_mb: peak memory
    of ours, in MiB.
    """

    work: str
    unit: str
    ours: float | None
    against: str
    other: float | None
    peak_mb: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as good as the other ours is; above 1 means better, whatever the unit.

        >>> Figure("extract", "s", 2.0, "zcat", 3.0).ratio, Figure("read", "stays/s", 2.0, "copy", 4.0).ratio
        (1.5, 0.5)
        """
        if self.ours is None or self.other is None:
            return None
        return self.ours / self.other if self.unit.endswith(("/s", "/core-s")) else self.other / self.ours

    def cells(self) -> dict[str, str]:
        """Return its columns of results.csv, as text."""
        numbers = {"ours": self.ours, "other": self.other, "ratio": self.ratio, "peak_mb": self.peak_mb}
        texts = {name: NOT_MEASURED if value is None else f"{value:.4g}" for name, value in numbers.items()}
        return {"work": self.work, "unit": self.unit, "against": self.against} | texts


def record(path: Path, benchmark: str, packages: Sequence[str], figures: Sequence[Figure]) -> None:
    """Print the figures as a table, and append them to a file with the machine, versions, commit and date."""
    columns = ("work", "unit", "ours", "against", "other", "ratio", "peak_mb")
    print(table([columns, *([figure.cells()[name] for name in columns] for figure in figures)]))
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    environment = {
        "benchmark": benchmark,
        "machine": machine(),
        "cores": available_cpus(),
        "versions": " ".join(f"{name}={number}" for name, number in versions.items()),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    append_rows(path, COLUMNS, [figure.cells() | environment for figure in figures], "move it away")


def machine() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of equal length as lines with aligned columns.

    >>> print(table([("work", "ours"), ("a long one", "1 s")]))
    work        ours
    a long one  1 s
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
