"""Arrays as .npy files that are either complete or absent."""

import io
from pathlib import Path

import numpy as np

from utils.files import atomic_write


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
