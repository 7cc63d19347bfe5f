"""The commit of the code, and its changes since then."""

import subprocess
from pathlib import Path

import pytest

from utils.git import commit, git_diff


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A committed project with a script and data that git does not know."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "train.py").write_text("lr = 1\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "x")
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_code_that_differs_from_its_commit_becomes_a_patch(repository: Path, tmp_path: Path) -> None:
    clean = commit(repository)
    assert git_diff(repository) == "" and not clean.endswith("+")
    git(tmp_path, "clone", "--quiet", "repository", "other")
    (repository / "train.py").write_text("lr = 2\n")
    (repository / "fusion.py").write_text("new = True\n")
    (repository / "patients.csv").write_text("subject_id\n10000001\n")
    assert commit(repository) == clean + "+" and "patients" not in git_diff(repository)
    (tmp_path / "dirty.patch").write_text(git_diff(repository))
    git(tmp_path / "other", "apply", "../dirty.patch")
    assert (tmp_path / "other" / "train.py").read_text() == "lr = 2\n"
    assert (tmp_path / "other" / "fusion.py").read_text() == "new = True\n"


def test_outside_a_repository_the_commit_is_unknown(tmp_path: Path) -> None:
    assert (commit(tmp_path), git_diff(tmp_path)) == ("unknown", "")
