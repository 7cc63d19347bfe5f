"""Rows of benchmarks/results.csv: what was measured, on which machine and with which versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from utils.results import append_rows
from utils.run import commit

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = (
    "benchmark", "work", "ours_seconds", "published_seconds", "ratio", "ours_mb", "published_mb", "machine",
    "cores", "versions", "commit", "date",
)  # fmt: skip


def record(path: Path, packages: Sequence[str], row: dict[str, object]) -> None:
    """Adds a row: `row`, whose seconds are of all cores together, with this machine, the versions, the commit
    and the date."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    told = {
        "machine": machine(),
        "cores": cores(),
        "versions": " ".join(f"{name}={number}" for name, number in versions.items()),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    append_rows(path, COLUMNS, [row | told], "move it away")


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
