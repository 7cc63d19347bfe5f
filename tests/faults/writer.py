"""Act as one of several runs that write to a results file: `python -m tests.faults.writer FILE NAME`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from evaluation import results
from utils.cli import run_cli

REPORTS, ROWS = 12, 25


@dataclass(frozen=True)
class WriterConfig:
    """Add the rows of some runs to a results file."""

    file: tyro.conf.Positional[Path]
    """The results file."""
    name: tyro.conf.Positional[str]
    """Start of the runs' names."""


def main(config: WriterConfig) -> None:
    """Report one run after the other; after a restart, also those that are in the file already."""
    for report in range(REPORTS):
        rows = [
            {"run": f"{config.name}-{report}", "label": f"label {n}", "value": n / 7} for n in range(ROWS)
        ]
        results.append(config.file, rows)


if __name__ == "__main__":
    run_cli(main, WriterConfig)
