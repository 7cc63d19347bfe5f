"""The comparison of starts runs both builds in turn, and ends a program after its first optimizer step."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import child, start
from training.classify_config import ClassifyConfig, check_config
from utils.config import parse

STEP = """
import sys, torch
weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight])
print("before")
if sys.argv[1:] == ["step"]:
    optimizer.step()
print("after")
"""


def test_the_medians_of_both_builds_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[Path] = []

    def run(command: list[object], environment: object = None, cwd: Path = child.ROOT) -> child.Ended:
        """The other build takes ten times as long, and `import torch` half a second."""
        if "-m" in command:
            return child.Ended(1, 1, 1, 1, "")
        turns.append(cwd)
        seconds = 0.5 if "import torch" in command else 1 if cwd == child.ROOT else 10
        return child.Ended(seconds, seconds, 1, 1, "")

    monkeypatch.setattr(child, "run", run)
    for build in ("ours", "other"):
        (tmp_path / build).mkdir()
    config = start.StartConfig(tmp_path, repeats=3)
    figures = start.compare(config, tmp_path)
    assert turns[:4] == [child.ROOT, tmp_path, child.ROOT, tmp_path]
    assert [figure.ratio for figure in figures] == [10.0] * 5 + [0.5] * 5


@pytest.mark.parametrize(("flag", "status", "printed"), [("step", 0, "before"), ("", 1, "before after")])
def test_a_program_ends_after_its_first_step(tmp_path: Path, flag: str, status: int, printed: str) -> None:
    (tmp_path / "program.py").write_text(STEP)
    command = [sys.executable, "-u", "-c", start.UNTIL_FIRST_STEP, "program.py", flag]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (status, printed.split())


@pytest.mark.parametrize("flags", start.FIRST_STEPS.values())
def test_the_trainings_are_valid(flags: str) -> None:
    check_config(parse(ClassifyConfig, ["--protocol", "supervised", *flags.split()]))
