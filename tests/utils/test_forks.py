"""A run that is forked is like its command: words, folder, environment, output, status, signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-SE", str(ROOT / "utils/forks.py"), "run"]


@contextmanager
def serving(folder: Path, module: str) -> Iterator[str]:
    """The socket of a process that has imported a module, which may lie in the folder."""
    command = [sys.executable, "-m", "utils.forks", "serve", module]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "TMPDIR": str(folder)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[str]:
    """That of a process with a module whose imports are counted."""
    (tmp_path / "counted.py").write_text("print('imported', file=open('imports', 'a'))\n")
    with serving(tmp_path, "counted") as path:
        yield path


def script(folder: Path, text: str) -> str:
    (folder / "script.py").write_text(text)
    return str(folder / "script.py")


def test_a_run_is_like_its_command(socket: str, tmp_path: Path) -> None:
    name = script(
        tmp_path,
        "import counted, os, sys, beside\n"
        "print(__name__, sys.argv[1:], os.getcwd(), os.environ['COLOUR'], input())\n"
        "print('to stderr', file=sys.stderr)\n"
        "sys.exit(7)\n",
    )
    (tmp_path / "beside.py").touch()
    here = tmp_path / "elsewhere"
    here.mkdir()
    for command in ([sys.executable], [*RUN, socket]):
        ended = subprocess.run(
            [*command, name, "--flag", "a b"],
            cwd=here,
            env=os.environ | {"COLOUR": "red", "PYTHONPATH": str(tmp_path)},
            input="typed\n",
            capture_output=True,
            text=True,
        )
        assert ended.stdout == f"__main__ ['--flag', 'a b'] {here} red typed\n"
        assert (ended.stderr, ended.returncode) == ("to stderr\n", 7)
    assert (tmp_path / "imports").read_text() == "imported\n"  # once, by the server
    assert (here / "imports").read_text() == "imported\n"  # and by the plain command


def test_two_runs_go_on_beside_each_other(socket: str, tmp_path: Path) -> None:
    name = script(
        tmp_path,
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n",
    )
    words = [("a", "b"), ("b", "a")]  # each waits for the other's file
    runs = [subprocess.Popen([*RUN, socket, name, *pair], cwd=tmp_path) for pair in words]
    assert [run.wait(60) for run in runs] == [0, 0]


def test_sigterm_is_handed_on_and_a_death_is_told(socket: str, tmp_path: Path) -> None:
    name = script(
        tmp_path,
        "import signal, sys, time\n"
        "if 'heeds' in sys.argv: signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "open(sys.argv[1], 'w').close()\n"
        "time.sleep(60)\n",
    )
    for word, status in (("heeds", 3), ("does not", 128 + signal.SIGTERM)):
        run = subprocess.Popen([*RUN, socket, name, word, word], cwd=tmp_path)
        while not (tmp_path / word).exists():
            time.sleep(0.01)
        run.terminate()
        assert run.wait(60) == status


def test_an_error_keeps_its_traceback(socket: str, tmp_path: Path) -> None:
    name = script(tmp_path, "1 / 0\n")
    ended = subprocess.run([*RUN, socket, name], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    shell = f"exec 3< <({sys.executable} -m utils.forks serve json); read -r -u 3 socket; echo $socket"
    socket = Path(subprocess.check_output(["bash", "-c", shell], cwd=ROOT, text=True).strip())
    end = time.monotonic() + 30
    while socket.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not socket.parent.exists()


def test_threads_are_those_of_the_run(tmp_path: Path) -> None:
    name = script(tmp_path, "import torch\nprint(torch.get_num_threads())\n")
    with serving(tmp_path, "torch") as path:
        environment = os.environ | {"OMP_NUM_THREADS": "3"}
        assert subprocess.check_output([*RUN, path, name], env=environment, text=True) == "3\n"
