"""Files are complete or absent, and a full disk is explained once."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.toy import room_for
from utils.arrays import npy_header, write_array
from utils.files import atomic_write, write_text

FULL = r"no space left to write .*{name} \(File too large\); free space there and run the same command again"


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4), (7,)])
def test_an_array_is_written_as_numpy_writes_it(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "theirs.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    assert (tmp_path / "ours.npy").read_bytes() == npy_header(np.float32, shape) + array.tobytes()


@pytest.mark.parametrize("name", ["a.npy", "a.txt"])
def test_a_full_disk_is_explained_and_the_previous_file_is_intact(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name

    def write(size: int) -> None:
        write_array(path, np.zeros(size)) if name.endswith("npy") else write_text(path, "x" * size)

    write(5)
    before = path.read_bytes()
    with room_for(20_000), pytest.raises(OSError, match=FULL.format(name=name)):
        write(100_000)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_explained_once_by_nested_writes(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "a") as a, atomic_write(tmp_path / "b") as b:
            b.touch()
            a.write_bytes(bytes(100_000))

    with room_for(20_000), pytest.raises(OSError, match="free space") as error:
        write()
    assert str(error.value).count("no space left") == 1
    assert not list(tmp_path.iterdir())
