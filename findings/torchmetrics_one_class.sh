#!/usr/bin/env bash
# Question: what does torchmetrics make of a label that has no positive (or no negative) sample in a split?
# Guess: NaN, or a macro mean without that label, as scikit-learn and this benchmark do.
# Seen with torchmetrics 1.9.0, torch 2.12.1: AUROC 0.0 with a UserWarning, and the macro mean over two labels, one of
# them perfectly ranked and one with a single class, is 0.5. A rare condition in a small test split so lowers the
# macro AUROC of every model. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 torchmetrics==1.9.0 numpy==2.4.6 \
  scikit-learn==1.9.1
"$folder/env/bin/python" -W ignore - <<'PY'
import math

import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAUROC, MultilabelAUROC

score = torch.tensor([[0.1, 0.2], [0.3, 0.9], [0.8, 0.4]])
truth = torch.tensor([[0, 1], [0, 1], [1, 1]])
alone = BinaryAUROC()(score[:, 1], truth[:, 1]).item()
macro = MultilabelAUROC(num_labels=2)(score, truth).item()
perfect = BinaryAUROC()(score[:, 0], truth[:, 0]).item()
sklearn = roc_auc_score(truth[:, 1], score[:, 1])
print(f"one class: torchmetrics {alone}, scikit-learn {sklearn}; macro of {perfect} and that: {macro}")
assert alone == 0.0 and perfect == 1.0 and macro == 0.5 and math.isnan(sklearn)
PY
