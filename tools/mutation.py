"""Score of `make mutation`: the share of planted faults that the tests detect, and the faults they miss."""

import sys

from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

MIN_SCORE = 0.85  # share of the mutants of a file that must be killed
KILLED = ("killed", "timeout")  # a mutant that never ends is detected too


def read_statuses(path: str) -> dict[str, str]:
    """Return {mutant: status} of one source file, as recorded by mutmut."""
    data = SourceFileMutationData(path=path)
    data.load()
    return {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}


def changed_lines(name: str, path: str) -> str:
    """Return the lines that a mutant removes and adds."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[3:]
    return "\n".join(line for line in lines if line.startswith(("-", "+")))


def main() -> None:
    """Print a line per file, then the surviving mutants; exit with status 1 if a file has too many."""
    statuses = {path: read_statuses(path) for path in config().only_mutate}
    failed = False
    for path, mutants in statuses.items():
        killed = sum(status in KILLED for status in mutants.values())
        timeouts = sum(status == "timeout" for status in mutants.values())
        score = killed / len(mutants) if mutants else 0.0
        failed |= score < MIN_SCORE
        print(f"{path}: {len(mutants)} mutants, {killed} killed ({timeouts} by timeout), {score:.1%}")
    for path, mutants in statuses.items():
        for name, status in mutants.items():
            if status not in KILLED:
                print(f"\n{name}: {status}\n{changed_lines(name, path)}")
    if failed:
        sys.exit(
            f"error: fewer than {MIN_SCORE:.0%} of a file's mutants were killed; test what the diffs change"
        )


if __name__ == "__main__":
    main()
