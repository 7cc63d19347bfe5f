"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota or the file size limit


class FullDisk(OSError):
    """A full disk or quota, told with the place and the cure."""


@contextmanager
def explain_disk_full(path: Path, then: str = "what was finished is kept") -> Iterator[None]:
    """Tell a full disk once, with the place and the cure; `then` says what becomes of what was written.

    Raises:
        FullDisk: on a full disk or quota.
    """
    try:
        yield
    except FullDisk:
        raise
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        cure = f"free space there and run the same command again: {then}"
        raise FullDisk(error.errno, f"no space left to write {path} ({error.strerror}); {cure}") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place to write to; on success it becomes `path` at once, on failure nothing is left of it.

    Raises:
        FullDisk: on a full disk or quota.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with explain_disk_full(path):
            yield partial
            flush(partial)
            partial.replace(path)
            flush(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Make a file that is written, or a folder's list of names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 characters; reads some at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole."""
    with atomic_write(path) as partial:
        partial.write_text(text)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, whole; never a pickle. Not by NumPy, which does not say that a disk is full."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.write(npy_header(array.dtype, array.shape))
        file.write(array.reshape(-1).data)


def npy_header(dtype: type | np.dtype, shape: tuple[int, ...]) -> bytes:
    """What stands before the rows of a .npy file, so that rows too many for memory can be written one by
    one.
    """
    header = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()
