#!/usr/bin/env bash
# Question: what is the p-value of a DeLong test of a model against itself, or against itself on another scale?
# Guess: 1, or NaN because the variance of the difference is zero.
# Seen with MLstatkit 0.1.91: z = 0 and p = 0.0, the strongest evidence for a difference of which there is none. Its
# bootstrap for this case finds no spread, and counts that as certainty. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check MLstatkit==0.1.91 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import numpy as np
from MLstatkit import Delong_test

rng = np.random.default_rng(0)
truth = np.repeat([1, 0], [20, 30])
score = rng.normal(size=50) + truth
other = rng.normal(size=50) + truth
results = {
    "itself": Delong_test(truth, score, score, random_state=0)[:2],
    "itself, doubled": Delong_test(truth, score, 2 * score, random_state=0)[:2],
    "another model": Delong_test(truth, score, other, random_state=0)[:2],
}
print({name: tuple(round(float(value), 3) for value in pair) for name, pair in results.items()})
assert results["itself"] == results["itself, doubled"] == (0.0, 0.0) and 0.05 < results["another model"][1] < 1
PY
