"""Locks among processes: a file that names the process which holds it. They need no flock.

A lock is a file that is created exclusively, which every file system can do, also Lustre and NFS without
flock. It says which process holds it. It holds as long as that process lives:

- on the same machine, flock tells, where the file system has it, or else the number and start of the process;
- elsewhere, the process touches the file every BEAT_SECONDS, and has ended after LIMIT_SECONDS without.

A lock of a process that has ended, however it ended, is removed by the next one that wants it.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from utils.files import explain_disk_full, explain_unwritable
from utils.log import logger

BEAT_SECONDS = 10.0
LIMIT_SECONDS = 120.0  # above the time for which NFS may show an old state of a file
UNREADABLE_SECONDS = 5.0  # after which a lock without content is that of a process that died as it wrote it
CLOCKS_DIFFER_SECONDS = 3600.0  # more than those of two machines do
POLL_SECONDS = 0.02
UNREADABLE = "unreadable"  # token of a lock without content
BOOT = Path("/proc/sys/kernel/random/boot_id")
PROCESSES = Path("/proc/self/ns/pid")


class Locked(ValueError):
    """A lock is held by another process that lives; the message names it and says what to do."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as its file names it.

    machine: what no other running machine has; processes: the namespace of process numbers there; started:
    start of the process, "" where the system does not tell; flock: whether the file is also locked by flock.
    """

    token: str
    host: str
    machine: str
    processes: str
    pid: int
    started: str
    since: str
    flock: bool

    @classmethod
    def this_process(cls, flock: bool) -> Holder:
        """Return this process, as a new holder."""
        since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        place = (platform.node(), _machine(), _process_namespace(), os.getpid(), _start_of(os.getpid()))
        return cls(uuid.uuid4().hex, *place, since, flock)

    def lives(self, path: Path) -> bool:
        """Return whether the process that holds the lock `path` still runs."""
        if self.machine == _machine():
            if self.flock and (locked := _is_flocked(path)) is not None:
                return locked
            if self.processes == _process_namespace():
                return _exists(self.pid) and _start_of(self.pid) == self.started
        return _beats(path)


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds until `release`, or until it ends."""

    path: Path
    holder: Holder
    descriptor: int
    released: threading.Event

    def release(self) -> None:
        """Remove the lock's file, unless another process has taken the lock over."""
        if self.released.is_set() or self.holder.pid != os.getpid():
            return
        self.released.set()
        atexit.unregister(self.release)
        _held.pop(self.path, None)
        if _read(self.path) == self.holder:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)

    def beat(self) -> None:
        """Touch the file until the release; end the process at once if another one has taken the lock."""
        while not self.released.wait(BEAT_SECONDS):
            with suppress(OSError):  # such as a server that does not answer now
                holder = _read(self.path)
                if holder is not None and holder.token not in (self.holder.token, UNREADABLE):
                    _release(self.path, holder)
                os.utime(self.path)


def _release(path: Path, holder: Holder) -> None:
    """End this process, whose lock another one holds now, before it writes anything more."""
    cause = "as this one gave no sign of life, such as while it was suspended; nothing more is written"
    text = f"error: {path.parent}: process {holder.pid} on {holder.host} has taken over, {cause}"
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


_held: dict[Path, Lock] = {}
os.register_at_fork(after_in_child=_held.clear)


def hold(path: Path, place: Path, cure: str) -> Lock:
    """Take a lock until the end of this process or its release; `place` is what it is for, in messages.

    A process that holds a lock already gets it again.

    Raises:
        Locked: Another process holds it and lives; the message ends with `cure`.
        OSError: The folder of the lock cannot be written to.
    """
    path = path.absolute()
    if path in _held and _read(path) == _held[path].holder:
        return _held[path]
    while (lock := _create(path)) is None:
        holder = _read(path)
        if holder is None:
            continue
        if holder.lives(path):
            raise Locked(
                f"{place}: another process is writing there, process {holder.pid} on {holder.host} since "
                f"{holder.since}; {cure}"
            )
        _remove(path, holder)
    _held[path] = lock
    atexit.register(lock.release)
    threading.Thread(target=lock.beat, daemon=True, name=f"lock {path}").start()
    return lock


def release_in(folder: Path) -> None:
    """Release the locks that this process holds in a folder."""
    for lock in [lock for path, lock in _held.items() if path.parent == folder.absolute()]:
        lock.release()


@contextmanager
def releasing_locks() -> Iterator[None]:
    """Release the locks that are taken inside the block at its end."""
    before = set(_held)
    try:
        yield
    finally:
        for lock in [lock for path, lock in _held.items() if path not in before]:
            lock.release()


@contextmanager
def locked(path: Path, place: Path, cure: str) -> Iterator[None]:
    """Hold a lock inside the block; see `hold`."""
    lock = hold(path, place, cure)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold a lock inside the block, after those processes that hold it now; they must do so briefly."""
    while True:
        try:
            lock = hold(path, path, "wait until it has ended")
            break
        except Locked:
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _create(path: Path) -> Lock | None:
    """Create the file of a lock for this process; None if there is one."""
    with explain_unwritable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except (FileExistsError, FileNotFoundError):  # the latter: its folder was removed just now
            return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        flock = True
    except OSError:
        flock = False
    holder = Holder.this_process(flock)
    try:
        with explain_disk_full(path):
            os.write(descriptor, json.dumps(asdict(holder)).encode())
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return Lock(path, holder, descriptor, threading.Event())


def _remove(path: Path, dead: Holder) -> None:
    """Remove the lock of a process that has ended.

    Only one process at a time may, or it could remove the lock of another one that took this lock meanwhile.
    """
    with waiting_lock(path.with_name(f"{path.name}.{dead.token}")):
        if _read(path) == dead:
            path.unlink(missing_ok=True)


def _read(path: Path) -> Holder | None:
    """Return the holder that a lock names; None if there is no lock, or not yet.

    A file that stays without content counts as the lock of an unknown process that has ended.
    """
    end = time.monotonic() + UNREADABLE_SECONDS
    while True:
        try:
            record = json.loads(path.read_bytes())
            return Holder(**{field.name: record[field.name] for field in fields(Holder)})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            if time.monotonic() > end:
                return Holder(UNREADABLE, "", _machine(), _process_namespace(), 0, "", "", False)
            time.sleep(POLL_SECONDS)


def _is_flocked(path: Path) -> bool | None:
    """Return whether a process holds the file by flock; None if it cannot be said."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _beats(path: Path) -> bool:
    """Watch a lock of another machine until its process touches it, or for LIMIT_SECONDS."""
    first = _time_of(path)
    if first is None or time.time() - first > CLOCKS_DIFFER_SECONDS:
        return False
    logger.info(f"{path} is held on another machine; watching for {LIMIT_SECONDS:g} s whether that lives")
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 10)
        if (touched := _time_of(path)) != first:
            return touched is not None
    return False


def _time_of(path: Path) -> float | None:
    """Return when a lock was touched; it is opened first, so that NFS asks its server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def _machine() -> str:
    """Return what distinguishes this machine, since its start, from others."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return platform.node()


def _process_namespace() -> str:
    """Return the namespace of process numbers, which containers have of their own; "" without any."""
    try:
        return os.readlink(PROCESSES)
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    """Return whether a process runs on this machine."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start_of(pid: int) -> str:
    """Return when a process began, in ticks since the machine's start; "" if the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
