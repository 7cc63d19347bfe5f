"""Files that are either complete or absent: written under another name, flushed to disk, then renamed."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, quota or file size limit


class FullDisk(OSError):
    """A full disk or quota; the message names the path and says what to do."""


@contextmanager
def explain_disk_full(path: Path, consequence: str = "what was finished is kept") -> Iterator[None]:
    """Turn a disk-full error into one message that names the path and what to do.

    Raises:
        FullDisk: The disk or quota is full; `consequence` says what happens to what was written before.
    """
    try:
        yield
    except FullDisk:
        raise
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        cure = f"free space there and run the same command again: {consequence}"
        raise FullDisk(error.errno, f"no space left to write {path} ({error.strerror}); {cure}") from error


class UnwritableFolder(OSError):
    """A folder that cannot be made or written to; the message names it and says what to do."""


@contextmanager
def explain_unwritable(folder: Path) -> Iterator[None]:
    """Turn the errors of making a folder, or a file in it, into one message that says what to do.

    Raises:
        UnwritableFolder: The folder or a parent is read-only, belongs to somebody else, or is a file.
    """
    try:
        with explain_disk_full(folder, "nothing was begun"):
            yield
    except FullDisk:
        raise
    except OSError as error:
        cure = "give another folder, or make this one writable"
        raise UnwritableFolder(error.errno, f"cannot write to {folder} ({error.strerror}); {cure}") from error


def check_space(folder: Path, needed: int, what: str) -> None:
    """Check that a folder's file system has `needed` bytes left.

    Raises:
        FullDisk: It has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        cure = "free space there, or give another folder"
        message = f"{folder} has {free / 1e9:.1f} GB left, and {what} takes {needed / 1e9:.1f} GB; {cure}"
        raise FullDisk(errno.ENOSPC, message)


@contextmanager
def atomic_write(path: Path, flushed: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` on success and is removed on failure.

    `flushed`: whether the file then survives a power cut, for which this waits for the disk.

    Raises:
        FullDisk: The disk or quota is full.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with explain_disk_full(path):
            yield partial
            if flushed:
                flush(partial)
            partial.replace(path)
            if flushed:
                flush(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Write a file, or the names in a folder, from the cache to disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str, flushed: bool = True) -> None:
    """Write a small text file atomically; `flushed`: see `atomic_write`."""
    with atomic_write(path, flushed) as partial:
        partial.write_text(text)
