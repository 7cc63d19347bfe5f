#!/usr/bin/env bash
# Pretrains both encoders with VICReg on the pairs of length-of-stay.
# Leaves a checkpoint an epoch in runs/vicreg-length-of-stay.
# STORE is the folder of the store. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=vicreg-length-of-stay
#SBATCH --output=vicreg-length-of-stay-%j.out
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
root="$(dirname "$0")/../../.."
[[ -f "$root/vicreg_trainer.py" ]] || root="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy that lies elsewhere
cd "$root"

exec ${LAUNCH:-python} vicreg_trainer.py \
  --task length-of-stay \
  --store "${STORE:-data/mimic}" --data_pairs paired --batch_size 256 \
  --image_size 224 --transforms_cxr simclrv2 \
  --ehr_dim 128 --ehr_layers 1 --vision_backbone resnet34 \
  --invariance 25 --variance 25 --covariance 1 --width 1 \
  --optimizer lars --lr 0.5989 --momentum 0.9 --weight_decay 1e-4 --trust_coefficient 1e-3 \
  --epochs 300 --warmup_epochs 10 --schedule cosine \
  --patience 30 --min_delta 1e-3 \
  --name vicreg-length-of-stay \
  "$@"
