"""How many faults the tests would see: the score of `make mutation` for each file, and what lived."""

import sys

from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

LEAST = 0.85  # of the mutants of a file are to be killed
KILLED = ("killed", "timeout")  # a mutant that never ends is seen too


def outcomes(path: str) -> dict[str, str]:
    """{mutant: what became of it} of one file, as mutmut wrote it down."""
    data = SourceFileMutationData(path=path)
    data.load()
    return {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}


def changed_lines(name: str, path: str) -> str:
    """The lines that a mutant takes away and puts in."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[3:]
    return "\n".join(line for line in lines if line.startswith(("-", "+")))


def main() -> None:
    """Print a line a file, then the mutants that lived; exit with status 1 if they are too many."""
    found = {path: outcomes(path) for path in config().only_mutate}
    failed = False
    for path, told in found.items():
        killed = sum(status in KILLED for status in told.values())
        timeouts = sum(status == "timeout" for status in told.values())
        share = killed / len(told) if told else 0.0
        failed |= share < LEAST
        print(f"{path}: {len(told)} mutants, {killed} killed ({timeouts} by time), {share:.1%}")
    for path, told in found.items():
        for name, status in told.items():
            if status not in KILLED:
                print(f"\n{name}: {status}\n{changed_lines(name, path)}")
    if failed:
        sys.exit(f"error: fewer than {LEAST:.0%} of a file's mutants were killed; test what the diffs change")


if __name__ == "__main__":
    main()
