#!/usr/bin/env bash
# Question: a CfC or LTC network gets, for each sample and step, the time since the last one (timespans of shape batch,
# steps). Does a sample's output depend on the times of that sample alone?
# Guess: yes, whatever the batch.
# Seen with ncps 1.0.1, torch 2.12.1: no. The times of a step are a vector over the batch that is broadcast along the
# units: where the batch has as many samples as the network has units, unit j of every sample lives by the clock of
# sample j, without a word; and the same for times of shape (batch, steps, 1). For other batch sizes it is an error, so
# that 64 samples and 64 units train on mixed clocks. A batch of one is right. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check ncps==1.0.1 torch==2.12.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from ncps.torch import LTC, CfC

torch.manual_seed(0)
size = 4
record, times = torch.randn(size, 5, 3), torch.rand(size, 5) * 3
for kind in (CfC, LTC):
    model = kind(3, size).eval()
    for shape, spans in (("batch, steps", times), ("batch, steps, 1", times[..., None])):
        other = spans.clone()
        other[1:] *= 2  # the times of the first sample stay
        with torch.no_grad():
            alone = model(record[:1], timespans=spans[:1])[0][0]
            first, again = (model(record, timespans=given)[0][0] for given in (spans, other))
        gap, moved = (first - alone).abs().max().item(), (first - again).abs().max().item()
        print(f"{kind.__name__}, times of shape ({shape}): the first sample differs from itself alone by {gap:.2f}, "
              f"and by {moved:.2f} where the others' times double")
        assert min(gap, moved) > 1e-3
    try:
        kind(3, size + 2)(record, timespans=times)
    except RuntimeError as error:
        print(f"{kind.__name__} with {size + 2} units: {error}")
    else:
        raise SystemExit("another number of units is no longer an error")
PY
