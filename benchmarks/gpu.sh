#!/usr/bin/env bash
# Test and measure on a GPU what CI cannot, in at most eight minutes: `make gpu`, or this file alone.
#
#   PYTHON   interpreter with PyTorch for CUDA (python3 if not set)
#   WHEELS   folder of wheels to use besides what is installed (wheels if not set; `make wheels` makes it)
#   OUT      folder for the log and the rows (runs/gpu if not set); rows also go to benchmarks/results.csv.
#            Where only OUT comes back from the machine: tail -n +2 OUT/results.csv >> benchmarks/results.csv
#
# It needs no network and no data: its stores are random. Every part has a time limit and the others go on without
# it; the exit status is 1 if one failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PYTHON=${PYTHON:-python3} WHEELS=${WHEELS:-wheels} OUT=${OUT:-runs/gpu}
mkdir -p "$OUT"
exec > >(tee "$OUT/gpu.log") 2>&1

if compgen -G "$WHEELS/*.whl" > /dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit 1
  export PYTHONPATH=$site
fi
"$PYTHON" - << 'END' || exit 1
import platform
import torch
print(f"python {platform.python_version()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
torch.cuda.init()
print(torch.cuda.get_device_name(), f"of {torch.cuda.device_count()}")
END

status=0
part() { # part SECONDS COMMAND ...: run it, and say how long it took
  local limit=$1 start=$SECONDS
  shift
  echo "== $*"
  timeout --kill-after=5 "$limit" "$@" || { echo "failed with status $?: $*"; status=1; }
  echo "== took $((SECONDS - start)) s"
}
part 150 "$PYTHON" -m pytest -p no:cacheprovider -m gpu tests/gpu --maxfail 10 --durations 5
part 90 "$PYTHON" -m benchmarks.recurrence --device cuda --results "$OUT/results.csv"
part 180 "$PYTHON" -m benchmarks.step --device cuda --results "$OUT/results.csv"
part 45 "$PYTHON" -m benchmarks.hourly --device cuda --results "$OUT/results.csv"

if [ -f "$OUT/results.csv" ]; then
  tail -n +2 "$OUT/results.csv" >> benchmarks/results.csv
fi
exit "$status"
