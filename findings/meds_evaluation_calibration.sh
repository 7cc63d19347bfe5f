#!/usr/bin/env bash
# Question: is the `calibration_error` of meds-evaluation the expected calibration error, which weighs each bin with its
# number of samples?
# Guess: yes; 990 predictions that are calibrated and 10 that are not give a small error.
# Seen with meds-evaluation 0.0.6, Python 3.11: no. It is the plain mean over the bins that hold a sample, so that the
# 10 samples of a bin count as much as the 990 of the other: 0.45 here, where the weighted error is 0.009. Fails if
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
python="$folder/env/bin/python"
"$python" -m pip install -q --disable-pip-version-check meds-evaluation==0.0.6 meds==0.4.1 polars==2.1.0 \
  scikit-learn==1.9.1
"$python" -W ignore - <<'PY'
from datetime import datetime

import polars as pl
from meds_evaluation.evaluate import evaluate_binary_classification

calibrated = [(0.1, number % 10 == 0) for number in range(990)]
wrong = [(0.9, False)] * 10
risk, truth = zip(*calibrated, *wrong)
table = pl.DataFrame(
    {
        "subject_id": range(1000),
        "prediction_time": [datetime(2150, 1, 1)] * 1000,
        "boolean_value": truth,
        "predicted_boolean_value": pl.Series([None] * 1000, dtype=pl.Boolean),
        "predicted_boolean_probability": pl.Series(risk, dtype=pl.Float32),
    }
)
given = evaluate_binary_classification(table)["samples_equally_weighted"]["calibration_error"]
weighted = (990 * abs(0.1 - 99 / 990) + 10 * abs(0.9 - 0)) / 1000
print(f"calibration_error: {given:.3f}; weighted by samples: {weighted:.3f}")
assert abs(given - 0.45) < 1e-6 and abs(weighted - 0.009) < 1e-9
PY
