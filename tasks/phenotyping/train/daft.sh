#!/usr/bin/env bash
# Train DAFT for phenotyping on EHR and X-ray.
# Learning rate and stage are as published for daft on phenotyping.
# Val and test scores of the best epoch go to results/phenotyping.csv.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=phenotyping-supervised-daft --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task phenotyping --mode train \
  --protocol supervised --fusion daft --layer_after 3 --data_pairs paired --image_size 224 --transforms_cxr supervised \
  --ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3 --vision_backbone resnet34 \
  --batch_size 16 --epochs 50 --optimizer adam --lr 6.493e-5 --weight_decay 0 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 --patience 30 --min_delta 1e-3 "$@"
