"""A `python` that starts at once: a fork of a process that has imported the large packages, and none of ours.

`python tests/quick_python.py FOLDER` makes FOLDER/python and serves it. That command takes what Python takes:
a program, `-m` and a module, or `-c` and code, each with its words. It finds modules where Python does.
"""

from __future__ import annotations

import ast
import gc
import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

FORK = multiprocessing.get_context("fork")
CAN_FORK = sys.platform != "darwin"  # see tools.runner
PACKAGES = (
    *("torch", "torchvision", "timm", "pandas", "pyarrow.parquet", "polars", "scipy.stats", "tyro", "yaml"),
    *("sklearn.linear_model", "sklearn.metrics", "matplotlib.pyplot", "pytest", "hypothesis"),
)
CLIENT = """#!{python} -IS
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(repr((sys.argv[1:], os.getcwd(), dict(os.environ))).encode() + b"\\n")
sys.exit(int(server.makefile().readline()))
"""


@contextmanager
def serve_python() -> Iterator[Path]:
    """Yield a folder for PATH with such a `python`; on macOS, which allows no such forks, the usual one's."""
    if not CAN_FORK:
        yield Path(sys.executable).parent
        return
    with tempfile.TemporaryDirectory(prefix="python") as folder:  # a short path, as a socket must have
        command = [sys.executable, __file__, folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        server = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        try:
            assert server.stdout.readline() == "ready\n"
            yield Path(folder)
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # with the calls that still run, if any
            server.communicate()


def serve(folder: Path) -> None:
    """Make the command, and run each call of it in a fork."""
    for package in PACKAGES:
        importlib.import_module(package)
    gc.freeze()  # so that the forks leave the memory shared
    path = folder / "socket"
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, path=str(path)))
    client.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        print("ready", flush=True)
        while listener in wait([listener, sys.stdin]):  # until who started this process has ended
            connection, _ = listener.accept()
            FORK.Process(target=answer, args=(connection,)).start()
            connection.close()


def answer(connection: socket.socket) -> None:
    """Run a call to its end and send its exit status."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    words, folder, environment = ast.literal_eval(connection.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    process = FORK.Process(target=become, args=(words,))
    process.start()
    if connection in wait([process.sentinel, connection]):  # the caller was ended, so is the call
        process.kill()
        return
    process.join()
    status = process.exitcode
    connection.sendall(f"{status if status >= 0 else 128 - status}\n".encode())


def become(words: Sequence[str]) -> None:
    """Do in this process what `python WORDS` does."""
    kind, *rest = words
    if kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = list(words), str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
