"""Starts many short runs for the imports of one: a process imports what they need, and forks for each.

It prints the path of its socket when it is ready; a run is then a command of few imports:

    python -m utils.forks serve run_gpu simclr_trainer &
    python -SE utils/forks.py run SOCKET run_gpu.py --task phenotyping

A run has a process of its own, and the output, folder, environment, SIGTERM and exit status of its command.
To import starts neither CUDA nor a thread that a run would miss, so a fork is safe.
"""

import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
from types import FrameType


def serve(modules: list[str]) -> None:
    """Import `modules` and fork for each run, until the process that started this one ends.

    ImportError for a module that there is not.
    """
    starter = os.getppid()
    for module in modules:
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listening:
        folder = tempfile.mkdtemp()
        listening.bind(f"{folder}/socket")
        listening.listen()
        listening.settimeout(1)
        print(f"{folder}/socket", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for the processes that watch a run
        while os.getppid() == starter:
            try:
                run, _ = listening.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                break
            run.close()
        else:
            shutil.rmtree(folder)
            return
    _run(run)


def _run(asked: socket.socket) -> None:
    """Become the run that is asked for; a process that stays behind tells its start and its end."""
    _, files, _, _ = socket.recv_fds(asked, 1, 3)
    command = json.loads(asked.makefile().readline())
    process = os.fork()
    if process:
        for file in files:
            os.close(file)
        asked.sendall(f"{process}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        asked.sendall(f"{status}\n".encode())
        os._exit(0)
    asked.close()
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:  # which torch read when it was imported
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sys.argv = command["words"]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


def run(path: str, words: list[str]) -> int:
    """Have the process at `path` run a script with its flags (`words`); gives its exit status.

    SIGTERM to this process is one to the run. OSError if nothing listens at `path`.
    """
    command = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until there is a run to hand it on to
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [b"!"], [0, 1, 2])
        server.sendall(f"{json.dumps(command)}\n".encode())
        told = server.makefile()
        process = int(told.readline())

        def hand_on(number: int, frame: FrameType | None) -> None:
            os.kill(process, number)

        signal.signal(signal.SIGTERM, hand_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        status = int(told.readline() or 1)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
