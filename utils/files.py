"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota or the file size limit


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write to; on success it becomes `path` at once, on failure nothing is left of it.

    Raises:
        OSError: on a full disk or quota, with the cure.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
        _flush(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            cure = "free space there and run the same command again: what was finished is kept"
            raise OSError(error.errno, f"no space left to write {path} ({error.strerror}); {cure}") from error
        raise


def _flush(path: Path) -> None:
    """Make a file, or a folder's list of names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole."""
    with whole(path) as partial:
        partial.write_text(text)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, whole; never a pickle."""
    with whole(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def npy_header(dtype: type, shape: tuple[int, ...]) -> bytes:
    """What stands before the rows of a .npy file, so that rows too many for memory can be written one by
    one."""
    header = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()
