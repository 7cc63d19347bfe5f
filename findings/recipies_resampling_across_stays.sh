#!/usr/bin/env bash
# Question: StepResampling of recipies, by the authors of the ICU benchmark YAIB, makes hourly values of two stays, once
# from a Polars and once from a pandas frame. What is in an hour with several values, and in one with none?
# Guess: the accumulator asked for (last, mean, max) of that hour and stay, from both; null or the stay's last value.
# Seen with recipies 1.3.1, polars 2.1.0, pandas 2.3.3: pandas does so. Polars keeps what is charted at the full hour
# since the first value and drops all else. Empty hours get, with "last", the value before, be it of another patient;
# with "mean" and "max" the mean and maximum of the whole column, of all stays and of the future. No warning. Fails if
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check polars==2.1.0 pandas==2.3.3 numpy==2.4.6 \
  scikit-learn==1.9.1 scipy==1.17.1 pyarrow==26.0.1
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check --no-deps recipies==1.3.1  # it wants polars[all]
"$folder/env/bin/python" -W ignore::DeprecationWarning - <<'PY'
from datetime import datetime, timedelta
from importlib.metadata import version

import pandas as pd
import polars as pl
from recipies import Ingredients, Recipe
from recipies.selector import all_of
from recipies.step import Accumulator, StepResampling

print(*(f"{name} {version(name)}" for name in ("recipies", "polars", "pandas")))
charted = [  # stay, minutes since admission, heart rate
    (1, 0, 80.0), (1, 20, 120.0), (1, 40, 100.0), (1, 60, 90.0),
    (2, 0, None), (2, 60, 60.0), (2, 200, 70.0),
]  # fmt: skip
frame = {
    "stay": [stay for stay, _, _ in charted],
    "time": [datetime(2150, 1, 1) + timedelta(minutes=minutes) for _, minutes, _ in charted],
    "rate": [rate for _, _, rate in charted],
}
roles = {"stay": ["group"], "time": ["sequence"], "rate": ["predictor"]}
seen = {}
for accumulator in (Accumulator.LAST, Accumulator.MEAN, Accumulator.MAX):
    for library in (pl, pd):
        recipe = Recipe(Ingredients(library.DataFrame(frame), roles=roles))
        recipe.add_step(StepResampling("1h", accumulator_dict={all_of(["rate"]): accumulator}))
        hourly = recipe.prep()
        rates = [None if rate != rate else rate for rate in hourly["rate"].to_list()]
        if library is pl:
            assert hourly["stay"].to_list() == [1, 1, 2, 2, 2, 2]
        seen[accumulator.value, library.__name__] = rates
        print(f"{accumulator.value} of {library.__name__}: {rates[:2]} of stay 1, {rates[2:]} of stay 2")
nothing = [90.0, None, 60.0, None, 70.0]  # what pandas has after the first hour
assert seen["last", "pandas"] == [100.0, *nothing] and seen["mean", "pandas"] == [100.0, *nothing]
assert seen["max", "pandas"] == [120.0, *nothing]
assert seen["last", "polars"] == [80.0, 90.0, 90.0, 60.0, 60.0, 60.0]
mean = (80 + 90 + 60) / 3  # of what was charted at full hours
assert seen["mean", "polars"] == [80.0, 90.0, mean, 60.0, mean, mean]
assert seen["max", "polars"] == [80.0, 90.0, 90.0, 60.0, 90.0, 90.0]
PY
