#!/usr/bin/env bash
# Question: sex is known for 60 of 100 patients of one cohort and for 90 of 100 of another, and half of the known are
# women in both. What p-value does a table one print for sex?
# Guess: 1, as the known values do not differ; missing ones are counted beside the test.
# Seen with tableone 0.9.6, pandas 3.1.1, scipy 1.17.1: <0.001. A missing value is a category of its own in the
# chi-squared test by default, so that a row can be "significant" by missingness alone. include_null=False gives 1.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check tableone==0.9.6 pandas==3.1.1 numpy==2.4.6 \
  scipy==1.17.1 statsmodels==0.15.0
"$folder/env/bin/python" -W error::UserWarning - <<'PY'
import pandas as pd
from scipy.stats import chi2_contingency
from tableone import TableOne

known = {"a": 30, "b": 45}
sex = sum((["F"] * count + ["M"] * count + [None] * (100 - 2 * count) for count in known.values()), [])
cohort = pd.DataFrame({"cohort": ["a"] * 100 + ["b"] * 100, "sex": sex})
by_hand = chi2_contingency([[30, 30], [45, 45]], correction=False).pvalue
with_missing = chi2_contingency([[30, 30, 40], [45, 45, 10]], correction=False).pvalue
print(f"by hand: {by_hand:.3f} of the known values, {with_missing:.1e} with missing ones as a category")
shown = {}
for include in (None, True, False):
    settings = {} if include is None else {"include_null": include}
    table = TableOne(cohort, columns=["sex"], categorical=["sex"], groupby="cohort", pval=True, **settings)
    shown[include] = [value for value in table.tableone[("Grouped by cohort", "P-Value")] if value][0]
    print(f"include_null {include}: p-value {shown[include]}")
assert by_hand > 0.99 and with_missing < 0.001 and shown == {None: "<0.001", True: "<0.001", False: "1.000"}
PY
