#!/usr/bin/env bash
# Question: which recurrent layers run in bfloat16 under CPU autocast?
# Guess: all of them, as their matrix products are those of a linear layer.
# Seen with torch 2.12.1: an LSTM returns bfloat16, a GRU, an LSTM cell and a GRU cell stay in float32 without a word.
# A comparison of record encoders under autocast so compares two number formats. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from torch import nn

torch.manual_seed(0)
record = torch.randn(2, 5, 4)
with torch.autocast("cpu", torch.bfloat16):
    formats = {
        "Linear": nn.Linear(4, 8)(record).dtype,
        "LSTM": nn.LSTM(4, 8)(record)[0].dtype,
        "GRU": nn.GRU(4, 8)(record)[0].dtype,
        "LSTMCell": nn.LSTMCell(4, 8)(record[0])[0].dtype,
        "GRUCell": nn.GRUCell(4, 8)(record[0]).dtype,
    }
print(formats)
assert formats["Linear"] == formats["LSTM"] == torch.bfloat16
assert formats["GRU"] == formats["LSTMCell"] == formats["GRUCell"] == torch.float32
PY
