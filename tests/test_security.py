"""What no tracked file may hold: keys, tokens, records of patients; and what we depend on is pinned."""

import re
import subprocess
from pathlib import Path

import pytest

from tools import audit

ROOT = Path(__file__).resolve().parent.parent
SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a token of a cloud": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}",
    "a token of a forge": r"\bgh[pousr]_\w{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}",
    "a token of a package or model hub": r"\bpypi-[\w-]{40,}|\bhf_[A-Za-z]{30,}|\bnpm_\w{30,}",
    "a token of a chat": r"\bxox[abprs]-[\w-]{10,}",
    "a signed token": r"\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{10,}",
    "a password in an address": r"\b[a-z][a-z+]{2,}://[^\s/@:'\"{}$]+:[^\s/@'\"{}$]+@",
    "a password": r"(?i)\b(password|passwd|secret|api_?key|token)\b\s*[:=]\s*['\"][^'\"\s{}$]{8,}['\"]",
}
RECORDS = {
    "a row of MIMIC-IV": r"\b1\d{7},2\d{7},(3\d{7}\b|,|\d*[A-Z-])",
    "an image of MIMIC-CXR": r"\b[0-9a-f]{8}(-[0-9a-f]{8}){4}\b",
    "the folder of a patient of MIMIC-CXR": r"\bp1\d{7}/s5\d{7}/[0-9a-f]{8}-",
}  # fmt: skip
DATA = (
    ".gz",
    ".zip",
    ".parquet",
    ".npy",
    ".npz",
    ".ckpt",
    ".pt",
    ".pth",
    ".pkl",
    ".jpg",
    ".jpeg",
    ".dcm",
    ".h5",
)


def tracked() -> list[Path]:
    """The files that git knows, or, outside a repository, all that are no product of a run."""
    told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if told.returncode == 0 and told.stdout:
        return [ROOT / name for name in told.stdout.split("\0") if (ROOT / name).is_file()]
    made = {".venv", "data", "runs", "results", "__pycache__", ".git"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.parts)]


def found(text: str, patterns: dict[str, str]) -> list[str]:
    """Where a text holds what it must not: "line 7: a private key", and never the thing itself."""
    lines = enumerate(text.splitlines(), 1)
    return [
        f"line {n}: {what}" for n, line in lines for what, rule in patterns.items() if re.search(rule, line)
    ]


@pytest.mark.parametrize("patterns", [SECRETS, RECORDS], ids=["secrets", "records"])
def test_no_tracked_file_holds_a_secret_or_a_record(patterns: dict[str, str]) -> None:
    faults = [
        f"{path.relative_to(ROOT)}, {fault}"
        for path in tracked()
        for fault in found(path.read_bytes().decode("utf-8", "replace"), patterns)
    ]
    assert not faults


def test_no_tracked_file_is_data() -> None:
    assert not [path for path in tracked() if path.suffix.lower() in DATA]


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("a private key", ("-----BEGIN RSA ", "PRIVATE KEY-----")),
        ("a token of a forge", ("ghp", "_", "a1" * 18)),
        ("a token of a package or model hub", ("hf", "_", "aB" * 17)),
        ("a password in an address", ("https://me", ":", "mine@example.org")),
        ("a password", ("pass", "word = 'correct-horse'")),
        ("a row of MIMIC-IV", ("1234567", "8,2345", "6789,34567890,2150-01-01")),
        ("an image of MIMIC-CXR", ("-".join(["0123abcd"] * 4), "-0123abcd")),
    ],
)  # fmt: skip
def test_a_secret_or_a_record_is_seen(what: str, parts: tuple[str, ...]) -> None:
    assert found(f"first\n{''.join(parts)}\n", SECRETS | RECORDS) == [f"line 2: {what}"]


def test_all_that_we_depend_on_is_pinned() -> None:
    names = [re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in audit.pins()]
    assert len(names) == len(set(names)) > 40


def test_a_version_that_is_not_pinned_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    (tmp_path / "constraints.txt").write_text("scipy==1.0\n")
    (tmp_path / "requirements.txt").write_text("-c constraints.txt\nnumpy>=2\n")
    with pytest.raises(ValueError, match=r"requirements.txt, line 2: numpy>=2 is no exact version"):
        audit.pins()
