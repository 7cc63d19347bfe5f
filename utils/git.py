"""The git commit of the code, and how the code differs from it."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("*.py", "*.sh")  # untracked files of these kinds are code; others may hold records of patients
TIMEOUT = 10  # seconds


def commit(folder: Path = ROOT) -> str:
    """Return the short hash of the commit, with "+" if the code differs; "unknown" outside a repository."""
    head = _git(folder, "rev-parse", "--short=12", "HEAD").strip()
    if not head:
        return "unknown"
    return head + ("+" if git_diff(folder) else "")


def git_diff(folder: Path = ROOT) -> str:
    """Return the uncommitted changes, including untracked scripts, in `git apply` format; "" if none."""
    untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE).split("\0")
    new_files = [
        _git(folder, "diff", "--no-index", "--binary", "--", os.devnull, name) for name in untracked if name
    ]
    return _git(folder, "diff", "--binary", "HEAD", "--", ".") + "".join(new_files)


def _git(folder: Path, *words: str) -> str:
    """Return the output of a git command, "" if git fails or is missing."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")
