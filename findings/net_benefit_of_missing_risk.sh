#!/usr/bin/env bash
# Question: a score could be computed for half of the patients only; it is NaN for the others. What does the decision
# curve of that score count?
# Guess: the patients with a score, or an error.
# Seen with dcurves 1.1.7, pandas 2.3.3: all patients. NaN is a risk below every threshold, so that a patient without a
# score is one who is not treated. That halves the net benefit of a score that here equals treating all at 0.1 where it
# is known, and makes it look harmful. The column n has all patients, and there is no warning. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check dcurves==1.1.7 pandas==2.3.3 numpy==2.4.6 \
  scipy==1.17.1 statsmodels==0.15.0 lifelines==0.30.3
"$folder/env/bin/python" -W error::UserWarning -W error::RuntimeWarning - <<'PY'
from importlib.metadata import version

import numpy as np
import pandas as pd
from dcurves import dca

print(*(f"{name} {version(name)}" for name in ("dcurves", "pandas")))
cohort = pd.DataFrame({"died": [1, 0, 1, 0] * 50, "risk": [0.8, 0.2, np.nan, np.nan] * 50})


def curve(patients: pd.DataFrame) -> dict[str, list[float]]:
    table = dca(data=patients, outcome="died", modelnames=["risk"], thresholds=[0.1, 0.5])
    print(f"{len(patients)} patients, {patients['risk'].isna().sum()} without a risk, "
          f"n of the table {sorted(set(table['n']))}")
    benefit = {name: rows["net_benefit"].round(3).tolist() for name, rows in table.groupby("model")}
    print(f"  net benefit at 0.1 and 0.5: {benefit}")
    return benefit


everyone, known = curve(cohort), curve(cohort.dropna())
lowest = curve(cohort.fillna({"risk": 0.0}))
assert everyone["risk"] == lowest["risk"] == [0.222, 0.25] and known["risk"] == [0.444, 0.5]
assert everyone["all"] == known["all"] == [0.444, 0.0]
PY
