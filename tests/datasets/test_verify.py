"""A store that has changed since it was written is found out, file by file."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from datasets.store import Store
from datasets.verify import VerifyConfig, differences, main
from tasks import TASKS
from tests.stores import refresh_manifests, write_store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_store(tmp_path / "tiny", stays=10, images=5)


def flip(path: Path, place: int) -> None:
    """Turns one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_store_as_written_is_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not list(differences(folder))
    main(VerifyConfig(folder))
    said = capsys.readouterr().out
    assert f"{5 + 4 * len(TASKS)} files as written" in said
    assert Store.open(folder).fingerprint in said


def test_each_file_that_differs_is_listed(folder: Path) -> None:
    flip(folder / "hourly.npy", -1)
    (folder / "normalizer.json").write_text("{}")
    (folder / "radiology/val_listfile.csv").unlink()
    (folder / "radiology/notes.txt").write_text("mine")
    found = list(differences(folder))
    assert [line.partition(":")[0] for line in found] == [
        "hourly.npy", "normalizer.json", "radiology/notes.txt", "radiology/val_listfile.csv"
    ]  # fmt: skip
    assert [line.partition(": ")[2].split(",")[0] for line in found] == [
        "other content of the same size", "2 bytes", "not in the manifest", "missing"
    ]  # fmt: skip


def test_the_command_lists_a_changed_bit_and_fails(folder: Path) -> None:
    flip(folder / "cxr.npy", 5000)
    Store.open(folder)  # which looks at sizes alone
    line = [sys.executable, "-m", "datasets.verify", str(folder)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stdout == "cxr.npy: other content of the same size\n"
    assert "1 files are not as its manifests say; copy them again" in done.stderr


def test_subjects_of_two_splits_are_found_in_a_store_that_is_whole(folder: Path) -> None:
    stays = pd.read_parquet(folder / "stays.parquet")
    stays.loc[stays["split"] == "test", "subject_id"] = stays.loc[0, "subject_id"]
    stays.to_parquet(folder / "stays.parquet")
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=r"1 subjects are in two splits \(first: 10000000\)"):
        main(VerifyConfig(folder))


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        main(VerifyConfig(tmp_path / "nowhere"))
