#!/usr/bin/env bash
# Question: training is resumed with the model in channels_last, from an optimizer state that was saved before that.
# Does a fused optimizer on a CPU go on as the plain one does?
# Guess: yes, or an error, as with fused=True on a GPU: the layout in memory is no part of a tensor's values.
# Seen with torch 2.12.1 on a CPU: neither. The moments that load_state_dict restores keep the layout they were saved
# with, and fused AdamW and SGD pair weights, gradients and moments by their place in memory: each weight of a
# convolution is moved by the momentum of another one, without a word. The plain optimizer is right. Fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from torch import nn

KINDS = {"AdamW": (torch.optim.AdamW, {}), "SGD": (torch.optim.SGD, {"momentum": 0.9})}


def resumed(kind: str, fused: bool, channels_last: bool) -> torch.Tensor:
    """Train for a step, save, resume in a new model for a step, and return its weights."""
    torch.manual_seed(0)
    first, second, images = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3), torch.randn(4, 3, 8, 8)
    optimizer, settings = KINDS[kind]
    saved = optimizer(first.parameters(), lr=0.1, fused=fused, **settings)
    first(images).square().mean().backward()
    saved.step()
    second.load_state_dict(first.state_dict())
    if channels_last:
        second.to(memory_format=torch.channels_last)
    again = optimizer(second.parameters(), lr=0.1, fused=fused, **settings)
    again.load_state_dict(saved.state_dict())
    second(images).square().mean().backward()
    again.step()
    return second.weight.detach()


print("torch", torch.__version__)
for kind in KINDS:
    right = resumed(kind, fused=False, channels_last=False)
    gaps = {}
    for fused in (False, True):
        for channels_last in (False, True):
            gap = (resumed(kind, fused, channels_last) - right).abs().max().item()
            gaps[fused, channels_last] = gap
            print(f"{kind}, fused {fused}, channels_last {channels_last}: weights differ by {gap:.1e} at most")
    assert max(gaps[False, False], gaps[False, True], gaps[True, False]) < 1e-5 and gaps[True, True] > 1e-3
PY
