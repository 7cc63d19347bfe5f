#!/usr/bin/env bash
# Train Flex-MoE for readmission on EHR, and X-ray where there is one.
# Learning rate and settings are as published for flexmoe on phenotyping; none is published for this script.
# Val and test scores of the best epoch go to results/readmission.csv.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=readmission-supervised-flexmoe --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task readmission --mode train \
  --protocol supervised --fusion flexmoe --flexmoe_experts 8 --flexmoe_routers 2 --flexmoe_top_k 4 --flexmoe_gate 0.1 \
  --flexmoe_dropout 0.2 --data_pairs partial --image_size 224 --transforms_cxr supervised \
  --ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3 --vision_backbone resnet34 \
  --batch_size 16 --epochs 50 --optimizer adam --lr 1e-4 --weight_decay 0 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 --patience 30 --min_delta 1e-3 "$@"
