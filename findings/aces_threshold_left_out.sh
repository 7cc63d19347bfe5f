#!/usr/bin/env bash
# Question: a cohort of ACES counts glucose values with `value_min: 70` or with `value_max: 70`. Which of 69, 70 and 71?
# Guess: 70 and 71, and 69 and 70: a minimum is a value that is allowed.
# Seen with es-aces 0.7.3, polars 1.44.2: 71 alone, and 69 alone. Both bounds are left out unless
# `value_min_inclusive: true` says otherwise, so that a flag charted as 1 with `value_min: 1` never occurs, and its
# cohort or label is empty. Windows must say whether they are inclusive, values need not. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check es-aces==0.7.3 polars==1.44.2 meds==0.4.1 \
  numpy==2.4.6 pyarrow==26.0.1
"$folder/env/bin/python" -W ignore - <<'PY'
import polars as pl
from aces.config import PlainPredicateConfig

chart = pl.DataFrame({"code": ["glucose"] * 3, "numeric_value": [69.0, 70.0, 71.0]})


def counted(**bounds) -> list[float]:
    return chart.filter(PlainPredicateConfig("glucose", **bounds).MEDS_eval_expr())["numeric_value"].to_list()


given = {
    "value_min 70": counted(value_min=70),
    "value_max 70": counted(value_max=70),
    "value_min 70, inclusive": counted(value_min=70, value_min_inclusive=True),
}
print(given)
assert list(given.values()) == [[71.0], [69.0], [70.0, 71.0]]
PY
