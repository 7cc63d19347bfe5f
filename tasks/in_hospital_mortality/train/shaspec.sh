#!/usr/bin/env bash
# Train ShaSpec for in-hospital-mortality on EHR, and X-ray where there is one.
# Learning rate and settings are as published for shaspec on in-hospital-mortality.
# Val and test scores of the best epoch go to results/in-hospital-mortality.csv.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=in-hospital-mortality-supervised-shaspec --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task in-hospital-mortality --mode train \
  --protocol supervised --fusion shaspec --shaspec_alpha 0.0261 --shaspec_beta 0.0283 --shaspec_dropout 0.2 \
  --data_pairs partial --image_size 224 --transforms_cxr supervised \
  --ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3 --vision_backbone resnet34 \
  --batch_size 16 --epochs 50 --optimizer adam --lr 1e-4 --weight_decay 0 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 --patience 30 --min_delta 1e-3 "$@"
