#!/usr/bin/env bash
# Train one linear layer on frozen encoders for readmission on the X-ray of paired stays.
# Val and test scores of the best epoch go to results/readmission.csv. Set CHECKPOINT to use other encoders.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=readmission-lineareval-cxr --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task readmission --mode train \
  --protocol lineareval --fusion cxr --load_state "${CHECKPOINT:-runs/simclr$ENC-readmission-seed$SEED/last.ckpt}" \
  --data_pairs cxr --image_size 224 --batch_size 256 --patience 30 --min_delta 1e-3 \
  --epochs 300 --optimizer adamw --lr 1e-3 --weight_decay 0.01 --schedule step --milestones 0.6 0.8 --gamma 0.1 "$@"
