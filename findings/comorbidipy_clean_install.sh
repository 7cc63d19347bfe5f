#!/usr/bin/env bash
# Question: does `pip install comorbidipy`, which computes Charlson and Elixhauser scores from MIMIC's codes, work
# beside the newest pandas that pip picks for it?
# Guess: yes, or pip refuses because of a pin.
# Seen with comorbidipy 0.5.0, pandas 3.1.1: its requirement is pandas >= 1.4.0, so pip installs both without a word;
# the import then fails, because it takes a warning class from a private module of pandas that is gone. Fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
python="$folder/env/bin/python"
"$python" -m pip install -q --disable-pip-version-check comorbidipy==0.5.0 pandas==3.1.1 numpy==2.4.6
"$python" - <<'PY'
from importlib.metadata import requires

wanted = [line for line in requires("comorbidipy") if line.lower().startswith("pandas")]
print(f"it asks for {wanted}")
try:
    import comorbidipy  # noqa: F401
except ImportError as error:
    print(f"the import fails: {str(error).partition(' (')[0]}")
    assert "SettingWithCopyWarning" in str(error)
else:
    raise SystemExit("the import works")
PY
