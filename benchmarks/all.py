"""Run all benchmarks with their defaults, one after another: `python -m benchmarks.all`."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import RESULTS, table
from utils.cli import run_cli

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = (
    "extraction",
    "images",
    "batches",
    "growth",
    "step",
    "recurrence",
    "hourly",
    "epoch_evaluation",
    "bootstrap",
    "ddp",
)


@dataclass(frozen=True)
class AllConfig:
    """Run every benchmark, also after one has failed; exit with status 1 if one failed."""

    results: Path = RESULTS
    """CSV file that the measured rows are appended to."""


def run(name: str, results: Path) -> tuple[int, float]:
    """Run a benchmark; return its exit status and its seconds."""
    print(f"\n== {name}", flush=True)
    started = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--results", str(results.absolute())]
    status = subprocess.run(command, cwd=ROOT).returncode
    return status, time.monotonic() - started


def main(config: AllConfig) -> None:
    """Run them, and print how long each took and which failed."""
    outcomes = {name: run(name, config.results) for name in BENCHMARKS}
    rows = [
        (name, f"{seconds:.0f} s", f"failed with {status}" if status else "")
        for name, (status, seconds) in outcomes.items()
    ]
    print("\n" + table([("benchmark", "took", ""), *rows]))
    print(f"total: {sum(seconds for _, seconds in outcomes.values()):.0f} s")
    sys.exit(1 if any(status for status, _ in outcomes.values()) else 0)


if __name__ == "__main__":
    run_cli(main, AllConfig)
