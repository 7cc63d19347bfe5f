#!/usr/bin/env bash
# Pretrains both encoders with ALIGN on the pairs of readmission.
# Leaves a checkpoint an epoch in runs/align-readmission.
# STORE is the folder of the store. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=align-readmission
#SBATCH --output=align-readmission-%j.out
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
root="$(dirname "$0")/../../.."
[[ -f "$root/align_trainer.py" ]] || root="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy that lies elsewhere
cd "$root"

exec ${LAUNCH:-python} align_trainer.py \
  --task readmission \
  --store "${STORE:-data/mimic}" --data_pairs paired --batch_size 256 \
  --image_size 224 --transforms_cxr simclrv2 \
  --ehr_dim 256 --ehr_layers 1 --vision_backbone resnet34 \
  --temperature 0.07 --denominator decoupled --swap 0.2 --width 0 \
  --optimizer adamw --lr 6.026e-5 --weight_decay 1e-4 \
  --epochs 300 --warmup_epochs 0 --schedule cosine \
  --patience 30 --min_delta 1e-3 \
  --name align-readmission \
  "$@"
