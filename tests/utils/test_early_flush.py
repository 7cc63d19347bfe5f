"""Files are flushed while they are written, and an error of the disk is not lost."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from datasets.events.buckets import write_buckets
from datasets.events.cleaning import EVENT_DTYPE
from datasets.store_writer import write_rows
from utils import early_flush as module
from utils.early_flush import early_flush
from utils.files import FullDisk


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Name of each file that is flushed, and whether the main thread waited for it."""
    files: list[tuple[str, bool]] = []

    def flush(path: Path) -> None:
        files.append((path.name, threading.current_thread() is threading.main_thread()))

    monkeypatch.setattr(module, "flush", flush)
    return files


def full_disk(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_disk(path: Path) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def wait_for(flushes: module.EarlyFlush, path: Path) -> None:
    while not flushes.is_done(path):
        pass


def test_a_file_is_flushed_in_a_thread_whenever_enough_was_appended(flushed: list, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with early_flush(every=10) as flushes:
        for count, expected in ((4, 0), (5, 0), (1, 1), (9, 1), (30, 2)):
            flushes.wrote(first, count)
            flushes.wrote(second, 1)
            wait_for(flushes, first)
            assert flushed == [("first", False)] * expected
        flushes.wrote(second, 5)
    assert flushed == [("first", False)] * 2 + [("second", False)]


def test_an_error_of_the_disk_ends_the_writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "flush", broken_disk)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), early_flush(every=1) as flushes:
        flushes.wrote(tmp_path, 1)  # the last bytes: nothing but the end can tell
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), early_flush(every=1) as flushes:
        flushes.wrote(tmp_path, 1)
        while True:
            flushes.wrote(tmp_path, 1)


def test_an_error_of_the_writer_is_the_one_that_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "flush", broken_disk)
    with pytest.raises(KeyError), early_flush(every=1) as flushes:
        flushes.wrote(tmp_path, 1)
        raise KeyError


def test_a_disk_that_fills_up_leaves_no_array(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "flush", full_disk)
    rows = np.zeros((module.EVERY // 4, 1), np.float32)
    with (
        pytest.raises(FullDisk, match=r"no space left to write .*rows\.npy"),
        write_rows(tmp_path / "rows.npy", np.float32, (1,)) as array,
    ):
        array.write(rows)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_with_buckets_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "flush", full_disk)
    events = np.zeros(100_000, EVENT_DTYPE)
    with pytest.raises(FullDisk, match="no space left to write"):
        write_buckets(iter([events]), tmp_path, np.zeros(1, np.int32))
