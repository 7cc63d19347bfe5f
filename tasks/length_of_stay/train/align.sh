#!/usr/bin/env bash
# Pretrain both encoders with ALIGN on the pairs of length-of-stay.
# A checkpoint of every epoch goes to runs/align-length-of-stay-seed0; --seed 1 makes the folder of seed 1.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=align-length-of-stay --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch align_trainer.py --task length-of-stay --data_pairs paired \
  --image_size 224 --transforms_cxr simclrv2 --ehr_dim 256 --ehr_layers 1 --vision_backbone resnet34 \
  --width 0 --temperature 0.07 --denominator decoupled --swap 0.2 --optimizer adamw --lr 6.026e-5 --weight_decay 1e-4 \
  --batch_size 256 --epochs 300 --warmup_epochs 0 --schedule cosine --patience 30 --min_delta 1e-3 "$@"
