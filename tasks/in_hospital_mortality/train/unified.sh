#!/usr/bin/env bash
# Trains unified fusion afresh for in-hospital-mortality from EHR, and X-ray where there is one.
# The best epoch's validation and test scores go to results/in-hospital-mortality.csv.
# lr is as published for joint on in-hospital-mortality; for this script none is.
# STORE is the folder of the store. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=in-hospital-mortality-supervised-unified
#SBATCH --output=in-hospital-mortality-supervised-unified-%j.out
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
root="$(dirname "$0")/../../.."
[[ -f "$root/run_gpu.py" ]] || root="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy that lies elsewhere
cd "$root"

exec ${LAUNCH:-python} run_gpu.py \
  --protocol supervised --mode train --task in-hospital-mortality --fusion unified \
  --store "${STORE:-data/mimic}" --data_pairs partial --batch_size 16 \
  --image_size 224 --transforms_cxr supervised \
  --ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3 --vision_backbone resnet34 \
  --optimizer adam --lr 4.032e-5 --weight_decay 0 --epochs 50 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 \
  --patience 30 --min_delta 1e-3 \
  --name in-hospital-mortality-supervised-unified \
  "$@"
