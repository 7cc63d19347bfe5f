#!/usr/bin/env bash
# Question: a program builds torchvision's ResNet-18, and trains it eagerly for a step. Does it import PyTorch's compiler,
# torch._dynamo, which nothing of it asks for, and what does that cost?
# Guess: no. The compiler is imported where torch.compile is called.
# Seen with torch 2.12.1 and torchvision 0.27.1, two cores of an AMD EPYC: yes, twice. `import torchvision` does it, for
# an operator of detection, and so does the first optimizer of any kind, when it is given its weights. Core-seconds
# and modules: torch alone 2.0 and 1,146; with torchvision 3.9 and 2,217; with an optimizer instead 3.3 and 2,031. A
# sixth of torch and torchvision is Python's garbage collector, which has nothing to find: 3.3 s without it.
# Fails if one of the two no longer imports the compiler, if that takes less than a fourth of `import torch`, or if the
# collector takes less than a twentieth.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 torchvision==0.27.1 numpy==2.4.6
cat > "$folder/start.py" <<'PY'
import gc
import sys
import time

without_collector, kind = sys.argv[1:]
if without_collector == "yes":
    gc.disable()
import torch

if kind == "torchvision":
    from torchvision.models import resnet18  # noqa: F401
elif kind == "optimizer":
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
print(round(time.process_time(), 3), len(sys.modules), "torch._dynamo" in sys.modules)
PY
"$folder/env/bin/python" -W ignore - "$folder/start.py" <<'PY'
import statistics
import subprocess
import sys

runs = [(kind, collector) for kind in ("nothing more", "torchvision", "optimizer") for collector in ("no", "yes")]
taken, seen = {run: [] for run in runs}, {}
for _ in range(6):
    for kind, without_collector in runs:  # in turn, as the speed of a machine drifts
        command = [sys.executable, "-W", "ignore", sys.argv[1], without_collector, kind]
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        taken[kind, without_collector].append(float(words[0]))
        seen[kind] = words[1:]
        assert (words[2] == "True") is (kind != "nothing more")
seconds = {run: statistics.median(times[1:]) for run, times in taken.items()}
for (kind, without_collector), value in seconds.items():
    modules, has_compiler = seen[kind]
    print(f"torch and {kind}, without the collector: {without_collector}: {value:.2f} s, {modules} modules, compiler: "
          f"{has_compiler}")
alone = seconds["nothing more", "no"]
assert min(seconds["torchvision", "no"], seconds["optimizer", "no"]) > 1.25 * alone
assert seconds["torchvision", "yes"] < 0.95 * seconds["torchvision", "no"]
PY
