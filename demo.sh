#!/usr/bin/env bash
# The main job from nothing, in minutes on two cores: patients and X-rays -> store -> SimCLR -> linear evaluation and
# fine-tuning for two tasks -> one table. `make demo` runs it. It starts afresh each time.
#
#   SEED=1 bash demo.sh                          synthetic patients of another seed
#   PATIENTS=5000 bash demo.sh                   more patients
#   MIMIC_IV=../mimic-iv-demo bash demo.sh       a real MIMIC-IV folder, with synthetic X-rays for its stays
set -euo pipefail
cd "$(dirname "$0")"
exec "${PYTHON:-python}" -m tools.demo
