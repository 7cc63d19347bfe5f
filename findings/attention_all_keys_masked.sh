#!/usr/bin/env bash
# Question: what does attention return for a sample whose keys are all masked, as for a stay without an X-ray?
# Guess: NaN everywhere, since a softmax over nothing is not defined.
# Seen with torch 2.12.1 on a CPU: it depends on how the same layer is called. MultiheadAttention gives NaN if it
# returns weights, and in eval mode without gradients; a finite output if it returns no weights and has gradients; and
# scaled_dot_product_attention gives zeros. A model can train on finite numbers and be tested on NaN. Fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from torch import nn

torch.manual_seed(0)
layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
tokens, mask = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
finite = {}
for weights in (True, False):
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            output, _ = layer(tokens, tokens, tokens, key_padding_mask=mask, need_weights=weights)
        finite[f"weights {weights}, gradients {gradients}"] = bool(output.isfinite().all())
masked = torch.zeros(6, 6, dtype=torch.bool)
zeros = nn.functional.scaled_dot_product_attention(*[tokens[:, None]] * 3, attn_mask=masked)
print(f"finite: {finite}; scaled_dot_product_attention: largest {zeros.abs().max().item()}")
assert list(finite.values()) == [False, False, True, False] and zeros.abs().max() == 0
PY
