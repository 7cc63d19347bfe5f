#!/usr/bin/env bash
# Question: DeepLIFT propagates differences from a baseline through each nonlinearity. What does Captum's do with an
# LSTM?
# Guess: an error or a warning, as the gates of nn.LSTM are out of reach of its hooks.
# Seen with captum 0.9.0, torch 2.12.1: only the usual warning about hooks. The attributions are gradient times input
# to the last digit, and do not add up to the difference of the outputs, which is what DeepLIFT is for; only the
# convergence delta, which is not returned by default, tells. A table of "DeepLIFT" and "gradient times input" of a
# record encoder shows one method twice. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check captum==0.9.0 torch==2.12.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import warnings

import torch
from captum.attr import DeepLift
from torch import nn


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, record: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(record)[0][:, -1])


torch.manual_seed(0)
model, record = Encoder(), (3 * torch.randn(4, 10, 3)).requires_grad_()
baseline = torch.zeros_like(record)
with warnings.catch_warnings(record=True) as given:
    warnings.simplefilter("always")
    attributions = DeepLift(model).attribute(record, baseline).detach()
messages = [str(warning.message) for warning in given]
gradient = torch.autograd.grad(model(record).sum(), record)[0]
with torch.no_grad():
    outputs = (model(record) - model(baseline)).flatten()
sums = attributions.sum((1, 2))
print(f"differences of the outputs {outputs.tolist()}\nsums of the attributions {sums.tolist()}")
print(f"differs from gradient times input by {(attributions - gradient * record).abs().max().item()}")
print(f"warnings: {messages}")
assert torch.allclose(attributions, gradient * record, atol=1e-6) and not any("LSTM" in text for text in messages)
assert (sums - outputs).abs().max() > 0.05
PY
