"""A lock holds while its process lives, on every file system, and never longer."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from utils import lock
from utils.files import UnwritableFolder
from utils.lock import Holder, Locked, hold, locked, releasing_locks, waiting_lock

FORK = get_context("fork")
CURE = "choose another --name"


@pytest.fixture(params=["flock", "ENOSYS", "ENOLCK"])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with flock, and on file systems that lack it: Lustre without -o flock, NFS without lockd."""
    if request.param == "flock":
        return

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, request.param), "no locks here")

    monkeypatch.setattr(fcntl, "flock", fail)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with releasing_locks():
        yield tmp_path / "run" / ".lock"


def in_fork(work: Callable[[], object]) -> int:
    """Return the exit status of a process that does some work; 3 if it was refused."""

    def call() -> None:
        try:
            work()
        except Locked:
            os._exit(3)

    process = FORK.Process(target=call)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def die_holding(path: Path) -> None:
    """Hold a lock, and end as SIGKILL does."""
    hold(path, path.parent, CURE)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("flock")
def test_a_second_process_is_refused_while_the_first_lives(path: Path) -> None:
    hold(path, path.parent, CURE)
    assert in_fork(lambda: hold(path, path.parent, CURE)) == 3
    assert path.exists()


@pytest.mark.usefixtures("flock")
def test_a_dead_process_does_not_block(path: Path) -> None:
    assert in_fork(lambda: die_holding(path)) == -signal.SIGKILL
    assert path.exists()
    hold(path, path.parent, CURE)
    assert json.loads(path.read_text())["pid"] == os.getpid()
    assert [other.name for other in path.parent.iterdir()] == [".lock"]


@pytest.mark.usefixtures("flock")
def test_one_of_many_that_start_at_once_takes_the_lock_of_a_dead_process(path: Path) -> None:
    assert in_fork(lambda: die_holding(path)) == -signal.SIGKILL
    reads, writes = os.pipe()
    all_answered = FORK.Event()

    def take_and_say() -> None:
        try:
            hold(path, path.parent, CURE)
        except Locked:
            os.write(writes, b"r")
        else:
            os.write(writes, b"h")
            all_answered.wait(60)  # a process that comes later must find the lock held

    processes = [FORK.Process(target=take_and_say) for _ in range(8)]
    for process in processes:
        process.start()
    answers = [os.read(reads, 1) for _ in processes]
    all_answered.set()
    for process in processes:
        process.join(60)
    assert sorted(answers) == sorted([b"h", *7 * [b"r"]])


@pytest.mark.usefixtures("flock")
def test_processes_that_wait_come_one_after_the_other(path: Path) -> None:
    counter = path.with_name("counter")
    counter.parent.mkdir()
    counter.write_text("0")

    def count() -> None:
        for _ in range(10):
            with waiting_lock(path):
                number = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(number + 1))

    processes = [FORK.Process(target=count) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert counter.read_text() == "40"


def test_the_message_names_the_process_and_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(path, path.parent, CURE)
    monkeypatch.setattr(lock, "_held", {})  # as another process has it
    with pytest.raises(
        Locked, match=rf"run: another process is writing there, process {os.getpid()} on "
    ) as it:
        hold(path, path.parent, CURE)
    assert str(it.value).endswith(CURE)


def test_the_same_process_holds_a_lock_as_often_as_it_likes(path: Path) -> None:
    assert hold(path, path.parent, CURE) is hold(path, path.parent, CURE)


def test_locks_are_released_at_the_end_of_a_block_and_of_a_process(path: Path) -> None:
    with locked(path, path.parent, CURE):
        assert path.exists()
    assert not path.exists()
    with pytest.raises(RuntimeError), releasing_locks():
        hold(path, path.parent, CURE)
        raise RuntimeError
    assert not path.exists()
    text = f"from pathlib import Path; from utils.lock import hold; p = Path({str(path)!r}); hold(p, p, '')"
    subprocess.run([sys.executable, "-c", text], check=True)
    assert not path.exists()


def of_elsewhere(path: Path, **changes: object) -> Holder:
    """Write the lock of a process of another machine."""
    path.parent.mkdir(exist_ok=True)
    record = vars(Holder.this_process(True)) | {"machine": "another", "host": "node7", "token": "1"} | changes
    path.write_text(json.dumps(record))
    return Holder(**record)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "LIMIT_SECONDS", 0.5)


@pytest.mark.usefixtures("quick")
def test_a_process_of_another_machine_lives_while_it_touches_its_lock(path: Path) -> None:
    of_elsewhere(path)
    beating = FORK.Process(target=lambda: [(os.utime(path), time.sleep(0.02)) for _ in range(200)])
    beating.start()
    with pytest.raises(Locked, match="on node7 since"):
        hold(path, path.parent, CURE)
    beating.terminate()
    beating.join()
    hold(path, path.parent, CURE)
    assert json.loads(path.read_text())["pid"] == os.getpid()


def test_an_old_lock_of_another_machine_does_not_block(path: Path) -> None:
    of_elsewhere(path)
    os.utime(path, (0, 0))
    began = time.monotonic()
    hold(path, path.parent, CURE)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("flocked", [True, False])
def test_a_number_of_a_process_that_another_one_has_now_does_not_block(path: Path, flocked: bool) -> None:
    of_elsewhere(path, machine=lock._machine(), started="1", flock=flocked)  # this process began later
    hold(path, path.parent, CURE)
    assert lock._read(path) == lock._held[path].holder


@pytest.mark.usefixtures("quick")
def test_a_container_with_its_own_numbers_of_processes_is_judged_by_its_beats(path: Path) -> None:
    holder = of_elsewhere(path, machine=lock._machine(), processes="pid:[1]", flock=False)
    assert not holder.lives(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_without_content_does_not_block(
    path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "UNREADABLE_SECONDS", 0.05)
    path.parent.mkdir()
    path.write_text(content)
    hold(path, path.parent, CURE)
    assert lock._read(path) == lock._held[path].holder


@pytest.mark.usefixtures("quick")
def test_a_process_whose_lock_was_taken_over_ends(path: Path) -> None:
    def sleep_on() -> None:
        hold(path, path.parent, CURE)
        of_elsewhere(path)
        time.sleep(20)

    began = time.monotonic()
    assert in_fork(sleep_on) == 1 and time.monotonic() - began < 10


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFolder, match=r"cannot write to \S*file/run .*; give another folder, or"):
        hold(tmp_path / "file" / "run" / ".lock", tmp_path, CURE)
