#!/usr/bin/env bash
# Tests late fusion for decompensation from EHR and X-ray.
# The scores go to results/decompensation.csv.
# STORE is the folder of the store, CHECKPOINT the trained classifier. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=decompensation-supervised-late-eval
#SBATCH --output=decompensation-supervised-late-eval-%j.out
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
  --protocol supervised --mode eval --task decompensation --fusion late \
  --load_state "${CHECKPOINT:-runs/decompensation-supervised-late/best.ckpt}" \
  --store "${STORE:-data/mimic}" --data_pairs paired --batch_size 256 \
  --image_size 224 \
  --name decompensation-supervised-late-eval \
  "$@"
