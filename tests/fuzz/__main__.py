"""Run the fuzzer and print how its cases ended: `python -m tests.fuzz --cases 2700`, or `make fuzz`."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from tests.fuzz.cases import CLEAR_ERROR, CORRECT
from tests.fuzz.groups import FAULTS
from tests.fuzz.workers import Case, Outcome, run_all
from utils.cli import run_cli
from utils.log import logger

OUTCOMES = (CORRECT, CLEAR_ERROR, "failure")


@dataclass(frozen=True)
class FuzzConfig:
    """Feed faulty input to the commands; each case must end in a correct result or in one clear error."""

    cases: int = 2700
    """Number of cases, spread evenly over the kinds of faults."""
    seed: int = 0
    """Seed of all draws."""
    jobs: int = 2
    """Number of processes."""
    only: str = ""
    """Only faults whose group or name contains this text."""
    details: bool = False
    """Print a row for each kind of fault instead of each group."""


def chosen_cases(config: FuzzConfig) -> list[Case]:
    """Return the cases to run, of all kinds in turn; raise ValueError if --only matches no kind."""
    kinds = [key for key in FAULTS if not config.only or any(config.only in part for part in key)]
    if not kinds:
        raise ValueError(f"--only {config.only}: no fault has this name; leave it out to run all")
    return [Case(*kinds[n % len(kinds)], n // len(kinds), config.seed) for n in range(config.cases)]


def table(outcomes: Sequence[Outcome], details: bool) -> str:
    """Return the counts for each group, or each kind of fault, as a Markdown table."""
    counts = Counter((_label(outcome.case, details), outcome.end) for outcome in outcomes)
    labels = list(dict.fromkeys(_label(Case(*key, 0, 0), details) for key in FAULTS))
    rows = [(label, [counts[label, end] for end in OUTCOMES]) for label in labels]
    rows = [(label, row) for label, row in rows if sum(row)]
    rows.append(("all", [sum(row[column] for _, row in rows) for column in range(len(OUTCOMES))]))
    head = f"| input | cases | {' | '.join(OUTCOMES)} |\n| --- | ---: | ---: | ---: | ---: |"
    return "\n".join([head, *(f"| {label} | {sum(r)} | {' | '.join(map(str, r))} |" for label, r in rows)])


def _label(case: Case, details: bool) -> str:
    return f"{case.group}: {case.fault}" if details else case.group


def main(config: FuzzConfig) -> None:
    """Run the cases; exit with status 1 if one of them failed."""
    cases, outcomes = chosen_cases(config), []
    for outcome in tqdm(run_all(cases, config.jobs), total=len(cases), unit="case", mininterval=10):
        outcomes.append(outcome)
        if outcome.end == "failure":
            logger.error("%s: %s", tuple(outcome.case), outcome.text)
    print(table(outcomes, config.details))
    if any(outcome.end == "failure" for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    run_cli(main, FuzzConfig)
