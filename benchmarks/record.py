"""Rows of benchmarks/results.csv: what was measured, on which machine and with which versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from evaluation.results import append_rows
from utils.git import commit

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = (
    "benchmark", "work", "unit", "ours", "against", "other", "ratio", "peak_mb", "machine", "cores",
    "versions", "commit", "date",
)  # fmt: skip
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what it is held against, in the same unit.

    work: what was done; unit: "s" and the like, of which less is better, or a rate such as "rows/s"; ours and
    other: None if not measured; against: what `other` is, such as "zcat" or "published"; peak_mb: largest
    memory of ours, in MiB.
    """

    work: str
    unit: str
    ours: float | None
    against: str
    other: float | None
    peak_mb: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as good ours is as the other: above 1 is better, in any unit.

        >>> Figure("extract", "s", 2.0, "zcat", 3.0).ratio, Figure("read", "stays/s", 2.0, "copy", 4.0).ratio
        (1.5, 0.5)
        """
        if self.ours is None or self.other is None:
            return None
        return self.ours / self.other if self.unit.endswith("/s") else self.other / self.ours

    def cells(self) -> dict[str, str]:
        """The columns of results.csv that it fills, as text."""
        numbers = {"ours": self.ours, "other": self.other, "ratio": self.ratio, "peak_mb": self.peak_mb}
        told = {name: NOT_MEASURED if value is None else f"{value:.4g}" for name, value in numbers.items()}
        return {"work": self.work, "unit": self.unit, "against": self.against} | told


def record(path: Path, benchmark: str, packages: Sequence[str], figures: Sequence[Figure]) -> None:
    """Prints the figures as a table, and adds a row each with this machine, the versions, the commit and the
    date.
    """
    shown = ("work", "unit", "ours", "against", "other", "ratio", "peak_mb")
    print(table([shown, *([figure.cells()[name] for name in shown] for figure in figures)]))
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    about = {
        "benchmark": benchmark,
        "machine": machine(),
        "cores": cores(),
        "versions": " ".join(f"{name}={number}" for name, number in versions.items()),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    append_rows(path, COLUMNS, [figure.cells() | about for figure in figures], "move it away")


def machine() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as lines with columns of equal width.

    >>> print(table([("work", "ours"), ("a long one", "1 s")]))
    work        ours
    a long one  1 s
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
