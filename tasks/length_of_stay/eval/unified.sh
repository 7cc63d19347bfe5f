#!/usr/bin/env bash
# Tests unified fusion for length-of-stay from EHR, and X-ray where there is one.
# The scores go to results/length-of-stay.csv.
# STORE is the folder of the store, CHECKPOINT the trained classifier. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=length-of-stay-supervised-unified-eval
#SBATCH --output=length-of-stay-supervised-unified-eval-%j.out
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
  --protocol supervised --mode eval --task length-of-stay --fusion unified \
  --load_state "${CHECKPOINT:-runs/length-of-stay-supervised-unified/best.ckpt}" \
  --store "${STORE:-data/mimic}" --data_pairs partial --batch_size 256 \
  --image_size 224 \
  --name length-of-stay-supervised-unified-eval \
  "$@"
