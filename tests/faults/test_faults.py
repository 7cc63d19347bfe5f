"""The harness kills, resumes and compares, and finds a writer that loses, doubles or tears what it writes."""

import csv
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.faults import killing
from tests.faults.contents import same_bytes
from tests.faults.jobs import JOBS, Base, Job
from tests.faults.trials import Trials
from tests.faults.writer import REPORTS, ROWS

DOUBLES = """import sys
for number in range(20):
    with open(sys.argv[1], "a") as file:
        file.write(f"row,{number}\\n")
"""
TEARS = """import sys
for number in range(20):
    with open(sys.argv[1], "w") as file:
        for row in range(number + 1):
            file.write(f"row,{row}")
            file.flush()
            open(sys.argv[1] + ".mark", "w").close()
            file.write("\\n")
"""
LOCKS = """import os, sys, time
from pathlib import Path
from utils.lock import Locked, hold
try:
    hold(Path(sys.argv[1] + ".lock"), Path(sys.argv[1]), "wait")
except Locked as error:
    os.write(2, str(error).encode())
    sys.exit(1)
time.sleep(0.3)
Path(sys.argv[1]).write_text("row")
"""
FAILS_ON_SIGTERM = """import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
time.sleep(0.5)
"""


def trials(job: Job, folder: Path) -> Trials:
    return Trials(job, Base(folder), folder / "job", np.random.default_rng(0))


def bad_writer(folder: Path, source: str) -> Job:
    (folder / "writer.py").write_text(source)
    script = str(folder / "writer.py")
    return Job(lambda base, output: [script, str(output / "table.csv")], {"table.csv": same_bytes}, 1)


def test_runs_that_report_at_once_and_are_killed_lose_and_double_no_row(tmp_path: Path) -> None:
    counts = trials(JOBS["3 runs report at once"], tmp_path).run(kills=3, terms=1)
    assert (counts.clock + counts.operation, counts.terms, counts.faults) == (3, 1, [])
    with open(tmp_path / "job" / "undisturbed" / "results.csv", newline="") as file:
        rows = [(row["run"], row["label"]) for row in csv.DictReader(file)]
    assert len(rows) == len(set(rows)) == 3 * REPORTS * ROWS


def test_a_writer_that_doubles_rows_is_found(tmp_path: Path) -> None:
    assert "table.csv differs" in trials(bad_writer(tmp_path, DOUBLES), tmp_path).run(kills=3, terms=0).faults


def test_a_writer_that_tears_a_table_is_found(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"table\.csv is torn"):
        trials(bad_writer(tmp_path, TEARS), tmp_path).run(kills=8, terms=0)


def test_a_command_that_does_not_leave_on_sigterm_is_found(tmp_path: Path) -> None:
    job = replace(bad_writer(tmp_path, FAILS_ON_SIGTERM), readers={})
    faults = trials(job, tmp_path).run(kills=0, terms=3).faults
    assert faults and all(fault.startswith("SIGTERM: status 3") for fault in faults)


@pytest.mark.parametrize("handler", ["lambda *_: os._exit(0)", "signal.SIG_DFL"])
def test_a_command_stands_still_while_its_handler_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    """So that it cannot give the handler up between the look and the signal."""
    source = f"import os, signal, time\nsignal.signal(signal.SIGTERM, {handler})\n"
    source += "os.write(1, b'x')\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.read(1) == b"x"
    states, look = [], killing.handles_sigterm

    def look_and_note(pid: int) -> bool:
        states.append(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0])
        return look(pid)

    monkeypatch.setattr(killing, "handles_sigterm", look_and_note)
    ended = killing.terminate(process.pid)
    assert states == ["T"] and (ended is None) == (handler == "signal.SIG_DFL")
    assert ended is None or ended[0] == 0
    if ended is None:
        assert killing.end(process.pid, signal.SIGKILL)[0] == -signal.SIGKILL


def test_a_command_without_a_handler_of_sigterm_is_found(tmp_path: Path) -> None:
    job = replace(bad_writer(tmp_path, "import time\ntime.sleep(0.2)\n"), readers={})
    with pytest.raises(RuntimeError, match="never handles SIGTERM"):
        trials(job, tmp_path).run(kills=0, terms=1)


def test_a_command_that_locks_its_folder_is_started_twice_with_and_without_flock(tmp_path: Path) -> None:
    job = replace(bad_writer(tmp_path, LOCKS), lock="table.csv.lock")
    counts = trials(job, tmp_path).run(kills=0, terms=0, starts=4)
    assert (counts.starts, counts.without_flock, counts.faults) == (4, 3, [])


def test_a_command_that_runs_twice_at_once_is_found(tmp_path: Path) -> None:
    job = replace(bad_writer(tmp_path, LOCKS.replace("sys.exit(1)", "pass")), lock="table.csv.lock")
    faults = trials(job, tmp_path).run(kills=0, terms=0, starts=1).faults
    assert faults[0].startswith("second start: status 0, ")
