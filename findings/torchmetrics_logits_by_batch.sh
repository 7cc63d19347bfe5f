#!/usr/bin/env bash
# Question: a binary AUROC gets logits in two batches; does it matter how the samples were divided?
# Guess: no, AUROC depends on the order of all scores alone.
# Seen with torchmetrics 1.9.0, torch 2.12.1: each batch decides on its own whether its scores are logits. One whose
# logits all lie between 0 and 1 is taken for probabilities, the other one goes through a sigmoid, and both are ranked
# together: 0.78 in two batches, 1.0 in one. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 torchmetrics==1.9.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from torchmetrics.classification import BinaryAUROC

logits = [torch.tensor([0.2, 0.95, 0.9]), torch.tensor([-2.0, 2.0, 1.5])]
truth = [torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1])]
metric = BinaryAUROC()
for scores, labels in zip(logits, truth, strict=True):
    metric.update(scores, labels)
batches = metric.compute().item()
together = BinaryAUROC()(torch.cat(logits), torch.cat(truth)).item()
print(f"the same six logits: AUROC {batches:.4f} in two batches, {together:.4f} in one")
assert together == 1.0 and abs(batches - 7 / 9) < 1e-6
PY
