"""Runs the fuzzer and prints how its cases ended: `python -m tests.fuzz --cases 2400`, or `make fuzz`."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from tests.fuzz.cases import CLEAR_ERROR, CORRECT
from tests.fuzz.groups import FAULTS
from tests.fuzz.workers import Case, Outcome, run_all
from utils.cli import run_cli

ENDS = (CORRECT, CLEAR_ERROR, "failure")


@dataclass(frozen=True)
class FuzzConfig:
    """Feed faulty input to the commands; each case must end in a correct result or in one clear error."""

    cases: int = 2400
    """Cases in all, spread evenly over the kinds of faults."""
    seed: int = 0
    """Start of every draw."""
    jobs: int = 2
    """Processes."""
    only: str = ""
    """Only faults whose group or name has this in it."""
    details: bool = False
    """A line for each kind of fault, not each group."""


def chosen_cases(config: FuzzConfig) -> list[Case]:
    """The cases asked for, of all kinds in turn; ValueError if no kind is called so."""
    kinds = [key for key in FAULTS if not config.only or any(config.only in part for part in key)]
    if not kinds:
        raise ValueError(f"--only {config.only}: no fault is called so; leave it out to see them all")
    return [Case(*kinds[n % len(kinds)], n // len(kinds), config.seed) for n in range(config.cases)]


def table(outcomes: Sequence[Outcome], details: bool) -> str:
    """Counts a group, or a kind of fault, in Markdown."""
    counts = Counter((_label(outcome.case, details), outcome.end) for outcome in outcomes)
    labels = list(dict.fromkeys(_label(Case(*key, 0, 0), details) for key in FAULTS))
    rows = [(label, [counts[label, end] for end in ENDS]) for label in labels]
    rows = [(label, row) for label, row in rows if sum(row)]
    rows.append(("all", [sum(row[place] for _, row in rows) for place in range(len(ENDS))]))
    head = f"| input | cases | {' | '.join(ENDS)} |\n| --- | ---: | ---: | ---: | ---: |"
    return "\n".join([head, *(f"| {label} | {sum(r)} | {' | '.join(map(str, r))} |" for label, r in rows)])


def _label(case: Case, details: bool) -> str:
    return f"{case.group}: {case.fault}" if details else case.group


def main(config: FuzzConfig) -> None:
    """Run the cases; exit with status 1 if one failed."""
    cases, outcomes = chosen_cases(config), []
    for outcome in tqdm(run_all(cases, config.jobs), total=len(cases), unit="case", mininterval=10):
        outcomes.append(outcome)
        if outcome.end == "failure":
            tqdm.write(f"failure: {tuple(outcome.case)}: {outcome.text}")
    print(table(outcomes, config.details))
    if any(outcome.end == "failure" for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    run_cli(main, FuzzConfig)
