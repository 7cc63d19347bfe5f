#!/usr/bin/env bash
# Trains a linear probe on every epoch of a pretraining and names the best epoch by validation.
# Leaves results_label_<task>.csv and its curve as PNG in the pretraining's folder; the same command goes on
# where it was stopped. --task phenotyping,in-hospital-mortality probes several tasks at once.
# RUN is the folder of the pretraining, STORE that of the store. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=eval-epoch
#SBATCH --output=eval-epoch-%j.out
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
root="$(dirname "$0")"
[[ -f "$root/epoch_evaluation.py" ]] || root="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy that lies elsewhere
cd "$root"

exec ${LAUNCH:-python} epoch_evaluation.py \
  --run_dir "${RUN:-runs/simclr-phenotyping}" --task phenotyping \
  --fusion concatenation --fusion_layer 0 \
  --store "${STORE:-data/mimic}" --data_pairs paired --batch_size 512 \
  --image_size 224 \
  --epochs 100 --lr 0.01 --weight_decay 0.01 \
  "$@"
