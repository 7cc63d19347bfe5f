#!/usr/bin/env bash
# Question: p-values of several labels are corrected for multiplicity, and one is NaN, because its test could not be
# made. What becomes of it, and of the others?
# Guess: NaN stays NaN and is not rejected; the others are corrected as if it were absent, or as one of the family.
# Seen with statsmodels 0.15.0, numpy 2.4.6: by Holm's method (the default is Holm-Sidak, which does the same) the NaN
# is rejected once all the others are: a test that could not be made is significant. By Benjamini-Hochberg every
# corrected p-value is NaN. No warning. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check statsmodels==0.15.0 numpy==2.4.6 scipy==1.17.1 \
  pandas==3.1.1
"$folder/env/bin/python" -W error - <<'PY'
import numpy as np
from statsmodels.stats.multitest import multipletests

values = [0.001, 0.01, 0.02, np.nan]
rejected, corrected = {}, {}
for method in ("holm-sidak", "holm", "fdr_bh", "bonferroni"):
    decisions, adjusted, *_ = multipletests(values, method=method)
    rejected[method], corrected[method] = decisions.tolist(), adjusted
    print(f"{method}: rejected {rejected[method]}, corrected {np.round(adjusted, 3).tolist()}")
assert rejected["holm"] == rejected["holm-sidak"] == [True] * 4 and not rejected["fdr_bh"][3]
assert np.isnan(corrected["fdr_bh"]).all() and np.isfinite(corrected["holm"][:3]).all()
PY
