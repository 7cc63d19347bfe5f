#!/usr/bin/env bash
# Question: can scikit-learn's gradient boosting, which takes missing values, train on a variable never measured?
# Guess: yes, a column of NaN alone is a feature without a split.
# Seen with scikit-learn 1.9.1, numpy 2.4.6: ValueError "window shape cannot be larger than input array shape", which
# names no column. A rare laboratory value in a small cohort, or in one fold of it, ends the training. One measured
# value is enough to train. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

rng = np.random.default_rng(0)
values = rng.normal(size=(200, 3))
truth = values[:, 0] > 0
values[:, 1] = np.nan
try:
    HistGradientBoostingClassifier(max_iter=3).fit(values, truth)
    message = "trained"
except ValueError as error:
    message = str(error)
values[0, 1] = 7.35
accuracy = HistGradientBoostingClassifier(max_iter=3).fit(values, truth).score(values, truth)
print(f"no value: {message}; one value: trained, accuracy {accuracy:.2f}")
assert message == "window shape cannot be larger than input array shape" and accuracy > 0.9
PY
