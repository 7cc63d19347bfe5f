#!/usr/bin/env bash
# Trains one linear layer on frozen encoders for radiology from the EHR of the paired stays.
# The best epoch's validation and test scores go to results/radiology.csv.
# STORE is the folder of the store, CHECKPOINT the pretrained encoders. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=radiology-lineareval-ehr
#SBATCH --output=radiology-lineareval-ehr-%j.out
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
  --protocol lineareval --mode train --task radiology --fusion ehr \
  --load_state "${CHECKPOINT:-runs/simclr-radiology/last.ckpt}" \
  --store "${STORE:-data/mimic}" --data_pairs ehr --batch_size 256 \
  --optimizer adamw --lr 1e-2 --weight_decay 0.01 --epochs 300 \
  --schedule step --milestones 0.6 0.8 --gamma 0.1 \
  --patience 30 --min_delta 1e-3 \
  --name radiology-lineareval-ehr \
  "$@"
