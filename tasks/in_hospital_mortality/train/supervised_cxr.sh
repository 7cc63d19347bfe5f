#!/usr/bin/env bash
# Train the supervised classifier for in-hospital-mortality on the X-ray of paired stays.
# The learning rate is as published for cxr on in-hospital-mortality.
# Val and test scores of the best epoch go to results/in-hospital-mortality.csv.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=in-hospital-mortality-supervised-cxr --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task in-hospital-mortality --mode train \
  --protocol supervised --fusion cxr --data_pairs cxr --image_size 224 --transforms_cxr supervised \
  --vision_backbone resnet34 --batch_size 16 --epochs 50 --optimizer adam --lr 2.951e-5 --weight_decay 0 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 --patience 30 --min_delta 1e-3 "$@"
