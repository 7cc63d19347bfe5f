#!/usr/bin/env bash
# Question: which negatives does the contrastive loss with a memory bank use before the bank has been filled?
# Guess: those that were stored so far, so that the first step equals the loss without a bank.
# Seen with lightly 1.6.0, torch 2.12.1: the bank begins as random unit vectors and all of them count from the first
# step on: with 8 pairs and a bank of 64 the first loss is more than twice that of the batch alone. Losses can only be
# compared between epochs once the bank was filled. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 torchvision==0.27.1 \
  lightly==1.6.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from lightly.loss import NTXentLoss

torch.manual_seed(0)
one = torch.randn(8, 16, requires_grad=True)
other = one.detach() + 0.1 * torch.randn(8, 16)
alone = NTXentLoss(temperature=0.5)(one, other).item()
loss = NTXentLoss(temperature=0.5, memory_bank_size=(64, 16))
with_bank = loss(one, other).item()
norms = loss.memory_bank.bank.norm(dim=-1)
print(f"first step: {alone:.3f} without a bank, {with_bank:.3f} with one; norms of its rows {norms[-3:].tolist()}")
assert with_bank > 1.5 * alone and torch.allclose(norms, torch.ones(64), atol=1e-4)
PY
