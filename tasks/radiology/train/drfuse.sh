#!/usr/bin/env bash
# Train DrFuse for radiology on EHR, and X-ray where there is one.
# Learning rate and settings are as published for drfuse on phenotyping; none is published for this script.
# Val and test scores of the best epoch go to results/radiology.csv.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=radiology-supervised-drfuse --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task radiology --mode train \
  --protocol supervised --fusion drfuse --drfuse_shared 0.01 --drfuse_ehr 0.7626 --drfuse_cxr 2 --drfuse_pred_ehr 2 \
  --drfuse_pred_cxr 2 --drfuse_pred_shared 2 --drfuse_attention 1.8578 --drfuse_dropout 0.2 --data_pairs partial \
  --image_size 224 --transforms_cxr supervised \
  --ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3 --vision_backbone resnet34 \
  --batch_size 16 --epochs 50 --optimizer adam --lr 1e-4 --weight_decay 0 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 --patience 30 --min_delta 1e-3 "$@"
