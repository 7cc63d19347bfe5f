#!/usr/bin/env bash
# Search the settings of methods for readmission on the validation split, each with as many trials and epochs.
#   bash tasks/readmission/search.sh medfuse daft --trials 30 --epochs 50
# A method is the name of a script in train/ that trains a classifier. If none is given: lineareval, finetune
# and supervised. Flags after the methods are those of python -m training.search and of run_gpu.py. The same
# command continues after an interruption, and may run several times at once, on all machines that share
# runs/search.
# tasks/launch.sh explains STORE, SEED, ENCODER and LAUNCH.
#SBATCH --job-name=search-readmission --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

methods=()
while [[ ${1:---} != --* ]]; do
  methods+=("$1")
  shift
done
[[ ${#methods[@]} -gt 0 ]] || methods=(lineareval finetune supervised)
stop() { # pass the signal on, so that the running trial saves
  kill -TERM "$search" 2>/dev/null || true
  wait "$search" || true
  exit 143
}
trap stop TERM INT USR1 USR2
for method in "${methods[@]}"; do
  LAUNCH="${LAUNCH:-python} -m training.search" bash "tasks/readmission/train/$method.sh" --epochs 50 "$@" &
  search=$!
  wait "$search"
done
