"""No tracked file holds keys, tokens or records of patients, and all dependencies are pinned."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a cloud token": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}",
    "a GitHub or GitLab token": r"\bgh[pousr]_\w{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}",
    "a PyPI, Hugging Face or npm token": r"\bpypi-[\w-]{40,}|\bhf_[A-Za-z]{30,}|\bnpm_\w{30,}",
    "a Slack token": r"\bxox[abprs]-[\w-]{10,}",
    "a JSON web token": r"\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{10,}",
    "a password in a URL": r"\b[a-z][a-z+]{2,}://[^\s/@:'\"{}$]+:[^\s/@'\"{}$]+@",
    "a password": r"(?i)\b(password|passwd|secret|api_?key|token)\b\s*[:=]\s*['\"][^'\"\s{}$]{8,}['\"]",
}
RECORDS = {
    "a row of MIMIC-IV": r"\b1\d{7},2\d{7},(3\d{7}\b|,|\d*[A-Z-])",
    "an image of MIMIC-CXR": r"\b[0-9a-f]{8}(-[0-9a-f]{8}){4}\b",
    "the folder of a patient of MIMIC-CXR": r"\bp1\d{7}/s5\d{7}/[0-9a-f]{8}-",
}  # fmt: skip
DATA = re.compile(r"\.(gz|zip|parquet|npy|npz|ckpt|pt|pth|pkl|jpg|jpeg|dcm|h5)$", re.IGNORECASE)
PINNED = ("requirements.txt", "constraints.txt")
PIN = re.compile(r"[A-Za-z0-9][\w.-]*==\d[\w.!+]*")


def tracked_files() -> list[Path]:
    """Return the files that git tracks; outside a repository, all but the products of runs."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    products = {".venv", "data", "runs", "results", "__pycache__", ".git"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not products & set(path.parts)]


def matches(text: str, patterns: dict[str, str]) -> list[str]:
    """Return where a text matches a pattern, such as "line 7: a private key", without quoting it."""
    return [
        f"line {number}: {name}"
        for number, line in enumerate(text.splitlines(), 1)
        for name, pattern in patterns.items()
        if re.search(pattern, line)
    ]


def pins(folder: Path) -> list[str]:
    """Return the lines `name==version` of the requirements; raise ValueError for any other requirement."""
    found = []
    for name in PINNED:
        for number, line in enumerate((folder / name).read_text().splitlines(), 1):
            requirement = line.partition("#")[0].strip()
            if requirement in ("", "-c constraints.txt"):
                continue
            if not PIN.fullmatch(requirement):
                raise ValueError(f"{name}, line {number}: {requirement} is no exact version; pin it by ==")
            found.append(requirement)
    return found


@pytest.mark.parametrize("patterns", [SECRETS, RECORDS], ids=["secrets", "records"])
def test_no_tracked_file_holds_a_secret_or_a_record(patterns: dict[str, str]) -> None:
    faults = [
        f"{path.relative_to(ROOT)}, {match}"
        for path in tracked_files()
        for match in matches(path.read_bytes().decode("utf-8", "replace"), patterns)
    ]
    assert not faults


def test_no_tracked_file_is_data() -> None:
    assert not [path for path in tracked_files() if DATA.search(path.name)]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a private key", ("-----BEGIN RSA ", "PRIVATE KEY-----")),
        ("a GitHub or GitLab token", ("ghp", "_", "a1" * 18)),
        ("a PyPI, Hugging Face or npm token", ("hf", "_", "aB" * 17)),
        ("a password in a URL", ("https://me", ":", "mine@example.org")),
        ("a password", ("pass", "word = 'correct-horse'")),
        ("a row of MIMIC-IV", ("1234567", "8,2345", "6789,34567890,2150-01-01")),
        ("an image of MIMIC-CXR", ("-".join(["0123abcd"] * 4), "-0123abcd")),
    ],
)  # fmt: skip
def test_a_secret_or_a_record_is_detected(name: str, parts: tuple[str, ...]) -> None:
    assert matches(f"first\n{''.join(parts)}\n", SECRETS | RECORDS) == [f"line 2: {name}"]


def test_all_dependencies_are_pinned() -> None:
    names = [re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins(ROOT)]
    assert len(names) == len(set(names)) > 40


def test_a_version_that_is_not_pinned_is_named(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("scipy==1.0\n")
    (tmp_path / "requirements.txt").write_text("-c constraints.txt\nnumpy>=2\n")
    with pytest.raises(ValueError, match=r"requirements\.txt, line 2: numpy>=2 is no exact version"):
        pins(tmp_path)
