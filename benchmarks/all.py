"""Every benchmark with its defaults, one after another: python -m benchmarks.all."""

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
    "epoch_evaluation",
    "bootstrap",
    "ddp",
)


@dataclass(frozen=True)
class AllConfig:
    """Run every benchmark; one that fails stops no other. Exits with status 1 if one failed."""

    results: Path = RESULTS
    """File that the measured rows are added to."""


def run(name: str, results: Path) -> tuple[int, float]:
    """Exit status and seconds of a benchmark."""
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    asked = [sys.executable, "-m", f"benchmarks.{name}", "--results", str(results.absolute())]
    status = subprocess.run(asked, cwd=ROOT).returncode
    return status, time.monotonic() - began


def main(config: AllConfig) -> None:
    """Run them, and tell how long each took and which failed."""
    ended = {name: run(name, config.results) for name in BENCHMARKS}
    told = [
        (name, f"{took:.0f} s", f"failed with {status}" if status else "")
        for name, (status, took) in ended.items()
    ]
    print("\n" + table([("benchmark", "took", ""), *told]))
    print(f"all of it took {sum(took for _, took in ended.values()):.0f} s")
    sys.exit(1 if any(status for status, _ in ended.values()) else 0)


if __name__ == "__main__":
    run_cli(main, AllConfig)
