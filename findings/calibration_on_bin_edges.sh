#!/usr/bin/env bash
# Question: do packages agree on the expected calibration error of risks given with one decimal, in ten bins?
# Guess: yes, each risk has a bin of its own (and 1.0 joins 0.9), so the error is the weighted gap of each risk.
# Seen with netcal 1.4.0, torchmetrics 1.9.0, uncertainty-calibration 0.1.4: 0.0087, 0.0167 and 0.0205, of which the
# last is right; torchmetrics in float32 gives 0.0205 too. Edges such as 0.30000000000000004 put a risk of 0.3 into the
# bin of 0.2, where gaps of opposite sign cancel. Scores on a clinical scale have few distinct values. Fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 torchvision==0.27.1 \
  netcal==1.4.0 torchmetrics==1.9.0 uncertainty-calibration==0.1.4 numpy==2.4.6 scikit-learn==1.9.1
"$folder/env/bin/python" -W ignore - <<'PY'
import calibration
import numpy as np
import torch
from netcal.metrics import ECE
from torchmetrics.classification import BinaryCalibrationError

rng = np.random.default_rng(0)
risk = rng.uniform(size=2000)
truth = (rng.uniform(size=2000) < risk).astype(int)
risk = np.round(risk, 1)
right = sum(abs((risk - truth)[risk == value].sum()) for value in np.unique(risk)) / len(risk)
double, single = (torch.tensor(risk, dtype=kind) for kind in (torch.float64, torch.float32))
errors = {
    "each risk alone": right,
    "netcal": ECE(10).measure(risk, truth),
    "torchmetrics": BinaryCalibrationError(10)(double, torch.tensor(truth)).item(),
    "torchmetrics, float32": BinaryCalibrationError(10)(single, torch.tensor(truth)).item(),
    "uncertainty-calibration": calibration.get_ece(risk, truth, num_bins=10),
}
print({name: round(float(error), 5) for name, error in errors.items()})
rounded = [round(float(error), 4) for error in errors.values()]
assert rounded == [0.0205, 0.0087, 0.0167, 0.0205, 0.0205]
PY
