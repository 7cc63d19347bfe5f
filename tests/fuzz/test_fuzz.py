"""A sample of the fuzzer (`make fuzz` runs all of it), and tests that it detects failures."""

from pathlib import Path

import pytest

from tests.fuzz import workers
from tests.fuzz.cases import CORRECT, CommandResult, Failure, check_result
from tests.fuzz.groups import FAULTS
from tests.fuzz.workers import Case, Worker, attempt

EACH = [key for key in FAULTS if key[0] in ("flags", "YAML")]
SOME = [
    ("raw tables", "reordered columns"),
    ("raw tables", "Windows line ends"),
    ("raw tables", "torn before it was gzipped"),
    ("raw tables", "NUL bytes"),
    ("raw tables", "wrong type"),
    ("raw tables", "NaN, inf, 1e309 as a value"),
    ("raw tables", "stay ends before it starts"),
    ("images", "20000x20000 and the like claimed"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "shared"


@pytest.mark.parametrize(("group", "fault"), [*EACH, *SOME], ids=lambda part: part.replace(" ", "-"))
def test_bad_input_ends_in_a_correct_result_or_one_clear_error(group: str, fault: str, shared: Path) -> None:
    shared.mkdir(exist_ok=True)
    for number in range(5 if group in ("flags", "YAML") else 1):
        outcome = attempt(Case(group, fault, number, 20), shared)
        assert outcome.end != "failure", outcome.text


@pytest.mark.parametrize(
    ("done", "error", "fault"),
    [
        (CommandResult(0, "", ""), True, "a wrong result"),
        (CommandResult(1, "error: a.csv is bad", "error: a.csv is bad"), False, "refused valid input"),
        (CommandResult(1, "error: it is bad", "error: it is bad"), True, "none of a.csv named"),
        (CommandResult(0, "a.csv: elephant", ""), True, "the patient's value is printed"),
        (
            CommandResult(1, "a.csv: elephant", "error: a.csv: elephant"),
            True,
            "the patient's value is printed",
        ),
        (CommandResult(70, "", "Traceback: a.csv"), True, "a traceback"),
        (CommandResult(1, "", "a.csv"), True, "no error message"),
    ],
)
def test_failures_are_detected(done: CommandResult, error: bool, fault: str) -> None:
    right = [2] if fault == "a wrong result" else [1]
    with pytest.raises(Failure, match=fault):
        check_result(done, lambda: 1, right, ["a.csv"], error=error, patient_value="elephant")
    assert check_result(CommandResult(0, "", ""), lambda: 1, [1], ["a.csv"]) == CORRECT


def test_a_hang_and_a_crash_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "POLLS", 0)
    worker, case = Worker(), Case("flags", "odd value", 0, 0)
    assert worker.run(case).text.startswith("a hang")
    monkeypatch.setattr(workers, "POLLS", 60)
    worker._process.kill()
    assert worker.run(case).text.startswith("a crash")
    worker.stop()
