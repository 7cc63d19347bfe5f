#!/usr/bin/env bash
# Trains the supervised classifier afresh for in-hospital-mortality from the EHR of the paired stays.
# The best epoch's validation and test scores go to results/in-hospital-mortality.csv.
# lr is as published for ehr on in-hospital-mortality.
# STORE is the folder of the store. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=in-hospital-mortality-supervised-ehr
#SBATCH --output=in-hospital-mortality-supervised-ehr-%j.out
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
  --protocol supervised --mode train --task in-hospital-mortality --fusion ehr \
  --store "${STORE:-data/mimic}" --data_pairs ehr --batch_size 16 \
  --ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3 \
  --optimizer adam --lr 5.3985e-4 --weight_decay 0 --epochs 50 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 \
  --patience 30 --min_delta 1e-3 \
  --name in-hospital-mortality-supervised-ehr \
  "$@"
