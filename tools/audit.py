"""Whether what we depend on is pinned, and has holes that are known: `make audit`.

The pins are checked without network. The holes are asked of PyPI by pip-audit, in an environment of its own;
where the index does not have it, or does not answer, that is said, and is no failure.
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ("requirements.txt", "constraints.txt")
AUDITOR = "pip-audit==2.10.1"
PIN = re.compile(r"[A-Za-z0-9][\w.-]*==\d[\w.!+]*")
SECONDS = 120


def pins() -> list[str]:
    """The lines `name==version` of the lists. ValueError for any other."""
    found = []
    for name in LISTS:
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            text = line.partition("#")[0].strip()
            if text and text != f"-c {LISTS[1]}":
                if not PIN.fullmatch(text):
                    raise ValueError(f"{name}, line {number}: {text} is no exact version; pin it by ==")
                found.append(text)
    return found


def others() -> list[str]:
    """Pinned packages that are installed in another version."""
    found = []
    for pin in pins():
        name, _, wanted = pin.partition("==")
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        if installed.partition("+")[0] != wanted:
            found.append(f"{pin} is pinned, {installed} is installed")
    return found


def ask_index() -> tuple[list[str], str]:
    """Known holes, a line each; and why some or all packages could not be asked for, "" if all were."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python, asked = Path(folder) / "bin" / "python", Path(folder) / "pins.txt"
        asked.write_text("\n".join(pins()))
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", AUDITOR]
        audit = [python, "-m", "pip_audit", "-r", asked, "--no-deps", "--disable-pip", "-f", "json"]
        try:
            subprocess.run(install, check=True, capture_output=True, timeout=SECONDS)
            done = subprocess.run(audit, check=False, capture_output=True, text=True, timeout=SECONDS)
            return judged(json.loads(done.stdout))
        except subprocess.TimeoutExpired:
            return [], f"no answer within {SECONDS} s"
        except (subprocess.CalledProcessError, ValueError):
            return [], "the index does not answer"


def judged(report: dict[str, list[dict]]) -> tuple[list[str], str]:
    """What a report of pip-audit says: as `ask_index`.

    >>> hole = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    >>> judged({"dependencies": [hole, {"name": "b", "skip_reason": "not found"}]})
    (['a 1: CVE-1, mended in 2'], '1 of 2 packages are not known to the index')
    """
    packages = report["dependencies"]
    skipped = sum("skip_reason" in package for package in packages)
    holes = [
        f"{package['name']} {package['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions'])}"
        for package in packages
        for hole in package.get("vulns", ())
    ]
    return holes, f"{skipped} of {len(packages)} packages are not known to the index" if skipped else ""


def main() -> None:
    """Print what was found; status 1 for a version that is not pinned, or a hole that is known."""
    try:
        print(f"{len(pins())} packages are pinned")
    except ValueError as error:
        sys.exit(f"error: {error}")
    print("\n".join(others()), end="\n" if others() else "")
    holes, unasked = ask_index()
    told = f"not audited for known holes: {unasked}; run `make audit` where PyPI answers"
    print(told if unasked else f"{len(holes)} known holes")
    if holes:
        sys.exit("\n".join(f"error: {hole}" for hole in holes))


if __name__ == "__main__":
    main()
