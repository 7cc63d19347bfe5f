"""Files that are either complete or absent: written under another name, flushed to disk, then renamed."""

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

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


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` on success and is removed on failure.

    Raises:
        FullDisk: The disk or quota is full.
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


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy atomically; unlike NumPy's writer this one says when the disk is full."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.write(npy_header(array.dtype, array.shape))
        file.write(array.reshape(-1).data)


def npy_header(dtype: type | np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file, so that its rows can be written one by one."""
    header = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()
