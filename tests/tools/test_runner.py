"""A forked or executed run has its own process, environment, output, exit status and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tools.runner import RunFailed, Runner

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """\
import counted, os, sys
print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("COLOUR"))
print("to stderr", file=sys.stderr)
sys.exit(int(os.environ.get("STATUS", "0")))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a program that imports a module whose imports are counted."""
    (tmp_path / "counted.py").write_text("print('imported', file=open('imports', 'a'))\nmain = print\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        sys, "modules", {n: m for n, m in sys.modules.items() if n not in ("program", "counted")}
    )
    return tmp_path


def write(name: str, text: str) -> None:
    """Write a program that does nothing when it is imported."""
    Path(name).write_text(f"if __name__ == '__main__':\n{textwrap.indent(text, '    ')}")


def drive(text: str) -> subprocess.Popen[str]:
    """Start a process that uses a runner, here."""
    text = f"from pathlib import Path\nfrom tools.runner import *\n{text}"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.getcwd()}"}
    return subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(name: str) -> None:
    end = time.monotonic() + 60
    while not Path(name).exists() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_forked_run_is_like_an_executed_one_and_imports_once(folder: Path) -> None:
    write("program.py", PROGRAM)
    run = "r.start('a', ['program.py', '--flag', 'a b'], {'COLOUR': 'red'})"
    plain = f"r.start('b', [{sys.executable!r}, 'program.py', '--flag', 'a b'], {{'COLOUR': 'red'}})"
    process = drive(
        f"import counted\nwith Runner(1, Path('logs')) as r:\n  {run}\n  {run}\n  {plain}\n  r.finish()"
    )
    assert process.wait(60) == 0
    wanted = ["to stderr", f"__main__ ['--flag', 'a b'] {folder} red"]
    assert [sorted(Path(f"logs/{name}.log").read_text().splitlines()) for name in "ab"] == [
        sorted(wanted)
    ] * 2
    assert Path("imports").read_text() == "imported\n" * 2  # by this process and by the executed run


@pytest.mark.parametrize("program", ["MAIN = 'counted:main'", "LATER = ('counted',)\nimport counted"])
def test_what_a_program_imports_when_it_runs_is_imported_once_too(folder: Path, program: str) -> None:
    constant, *body = program.splitlines()
    Path("program.py").write_text(f"{constant}\nif __name__ == '__main__':\n    {''.join(body) or 'pass'}\n")
    run = "r.start('a', ['program.py'])"
    process = drive(f"with Runner(1, Path('logs')) as r:\n  {run}\n  {run}\n  r.finish()")
    assert process.wait(60) == 0
    assert Path("imports").read_text() == "imported\n"


def test_programs_of_later_runs_are_imported_while_one_runs(folder: Path) -> None:
    Path("program.py").write_text("MAIN = 'counted:main'\n")
    write("wait.py", "import os, time\nwhile not os.path.exists('imports'): time.sleep(0.01)\n")
    later = "[['program.py'], ['bash', 'absent.sh'], [sys.executable, 'absent.py']]"
    process = drive(
        f"with Runner(1, Path('logs')) as r:\n  r.run('a', ['wait.py'], before={later})\n"
        "  print(Path('imports').read_text())\n  r.start('b', ['program.py'])\n  r.finish()"
    )
    assert process.communicate(timeout=60)[0] == "imported\n\n" and process.returncode == 0
    assert Path("imports").read_text() == "imported\n"


def test_a_module_of_a_package_that_was_imported_before_runs_without_a_warning(folder: Path) -> None:
    Path("package").mkdir()
    Path("package/__init__.py").write_text("from package import program\n")
    Path("package/program.py").write_text("print(__name__)\n")
    process = drive(
        "with Runner(2, Path('logs')) as r:\n  r.start('a', ['-m', 'package.program'])\n  r.finish()"
    )
    assert process.wait(60) == 0
    text = Path("logs/a.log").read_text()
    assert "__main__" in text and "RuntimeWarning" not in text


def test_runs_go_on_beside_each_other(folder: Path) -> None:
    write("meet.py", "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).touch()\n"
          "while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n")  # fmt: skip
    with Runner(2, folder) as runner:
        runner.start("first", ["meet.py", "a", "b"])  # each waits for the other's file
        runner.start("second", [sys.executable, "meet.py", "b", "a"])
        runner.finish()


@pytest.mark.parametrize("program", [["fail.py"], [sys.executable, "fail.py"]], ids=["forked", "executed"])
def test_a_failure_is_reported_and_nothing_more_is_started(folder: Path, program: list[str]) -> None:
    write("fail.py", "1 / 0\n")
    process = drive(
        f"with Runner(1, Path('logs')) as r:\n  r.start('bad', {program})\n"
        "  try: r.start('next', ['touch', 'started'])\n  except RunFailed as failure: print(failure)\n"
    )
    printed, _ = process.communicate(timeout=60)
    reason = "ZeroDivisionError: division by zero"
    assert printed == f"bad failed with exit status 1; logs/bad.log ends with: {reason}\n"
    assert not Path("started").exists() and "Traceback" in Path("logs/bad.log").read_text()


@pytest.mark.parametrize(("shell", "status"), [("exit 7", 7), ("kill -KILL $$", 137)])
def test_a_failure_has_the_exit_status_that_a_shell_reports(folder: Path, shell: str, status: int) -> None:
    with Runner(1, folder) as runner, pytest.raises(RunFailed) as failed:
        runner.run("failing", ["bash", "-c", shell])
    assert failed.value.status == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_lets_all_runs_save_and_starts_nothing_more(folder: Path, number: signal.Signals) -> None:
    write("save.py", "import signal, sys, time\n"
          "signal.signal(signal.SIGTERM, lambda *_: sys.exit(open('saved', 'a').write(sys.argv[1]) and 0))\n"
          "open(sys.argv[1], 'w').close()\n"
          "time.sleep(60)\n")  # fmt: skip
    runs = ["['save.py', 'a']", f"[{sys.executable!r}, 'save.py', 'b']", "['touch', 'c']"]
    starts = "\n".join(f"  r.start({name!r}, {run})" for name, run in zip("abc", runs, strict=True))
    process = drive(f"with Runner(2, Path('.')) as r:\n{starts}")
    wait_for("a")
    wait_for("b")
    process.send_signal(number)
    assert process.wait(60) == 143
    assert sorted(Path("saved").read_text()) == ["a", "b"] and not Path("c").exists()


def test_a_signal_while_a_run_is_started_reaches_it(folder: Path) -> None:
    """The signal arrives between the fork and its return."""
    text = "import os, signal\nfork = os.fork\n" \
        "def slow(): pid = fork(); pid and os.kill(os.getpid(), signal.SIGTERM); return pid\n" \
        "os.fork = slow\nwith Runner(1, Path('.')) as r: r.run('a', ['sleep', '60'])"  # fmt: skip
    began = time.monotonic()
    assert drive(text).wait(60) == 143 and time.monotonic() - began < 50


def test_threads_are_those_of_the_run(folder: Path) -> None:
    Path("threads.py").write_text("import torch\nprint(torch.get_num_threads())\n")
    process = drive("with Runner(1, Path('.')) as r: r.run('a', ['threads.py'], {'OMP_NUM_THREADS': '3'})")
    printed, _ = process.communicate(timeout=60)
    assert printed.split()[-1] == "3"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux alone")
@pytest.mark.parametrize("threads", [1, 2])
def test_importing_starts_no_threads_but_those_of_libraries_that_can_be_forked(
    folder: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy and SciPy each have an OpenBLAS that starts threads on import, and Arrow's allocator has one."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", str(threads))
    write(
        "program.py",
        "import numpy, pyarrow\n"
        "ones = numpy.ones((300, 300))\n"
        "print((ones @ ones).sum(), pyarrow.array(range(10**6)).nbytes)",
    )
    runs = "['run_gpu.py'], ['simclr_trainer.py'], ['program.py']"
    process = drive(
        "import os\n"
        "with Runner(1, Path('logs')) as r:\n"
        f"    r.run('a', ['true'], before=[{runs}])\n"
        "    for task in os.listdir('/proc/self/task'):\n"
        "        print(Path('/proc/self/task', task, 'comm').read_text().strip(), flush=True)\n"
        "    r.run('b', ['program.py'])"
    )
    output, _ = process.communicate(timeout=120)
    *names, calculated = output.splitlines()
    assert calculated == "27000000.0 8000000" and process.returncode == 0
    others = [name for name in names if name != "jemalloc_bg_thd"]
    assert len(others) <= 1 + 2 * (threads - 1)
