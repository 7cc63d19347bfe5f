#!/usr/bin/env bash
# Question: GRU-D lets a variable that was not measured decay to its mean of the training set. Which mean does a model
# of PyPOTS take for the stays that it predicts?
# Guess: that of the training set, kept with the weights, so that the risk of a stay depends on that stay alone.
# Seen with pypots 1.5, torch 2.12.1: that of the stays given to predict. The same stay has another risk alone than
# among others; from an HDF5 file, where each stay takes its own means, it has the risk it has alone, and none (NaN)
# where a variable was never measured in it, whereas an array has a risk then. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check pypots==1.5 torch==2.12.1 numpy==2.4.6 \
  pandas==2.3.3 scikit-learn==1.9.1 scipy==1.17.1
cd "$folder"
HOME=$folder "$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import h5py
import numpy as np
import torch
from pypots.classification import GRUD

print(*(f"{name} {version(name)}" for name in ("pypots", "torch")))
random = np.random.default_rng(0)
died = random.integers(0, 2, 64)
stays = random.normal(size=(64, 12, 3)) + died[:, None, None]
stays[random.random(stays.shape) < 0.6] = np.nan
torch.manual_seed(0)
model = GRUD(n_steps=12, n_features=3, n_classes=2, rnn_hidden_size=8, epochs=5, batch_size=16, device="cpu",
             verbose=False)
model.fit({"X": stays, "y": died})


def risk(given: np.ndarray, file: str | None = None) -> float:
    data = {"X": given}
    if file:
        with h5py.File(file, "w") as store:
            store["X"] = given.astype(np.float32)
    return float(model.predict(file or data)["classification_proba"][0, 1])


stay, others = stays[:1], stays[1:]
unmeasured = stay.copy()
unmeasured[..., 2] = np.nan
seen = {
    "alone": risk(stay),
    "with 63 others": risk(stays),
    "with 63 others of higher values": risk(np.concatenate([stay, others + 10])),
    "from a file, with 63 others": risk(stays, "stays.h5"),
    "a variable never measured": risk(unmeasured),
    "a variable never measured, from a file": risk(unmeasured, "unmeasured.h5"),
}
for name, value in seen.items():
    print(f"risk of the first stay, {name}: {value:.4f}")
alone, among, higher, from_file, array, file = seen.values()
assert abs(alone - among) > 1e-3 and abs(higher - among) > 0.01 and abs(alone - from_file) < 1e-5
assert np.isfinite(array) and np.isnan(file)
PY
