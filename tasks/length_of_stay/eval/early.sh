#!/usr/bin/env bash
# Test early fusion for length-of-stay on EHR and X-ray.
# The scores go to results/length-of-stay.csv. Set CHECKPOINT to test another classifier.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=length-of-stay-supervised-early-eval --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task length-of-stay --mode eval \
  --protocol supervised --fusion early --data_pairs paired --batch_size 256 --image_size 224 \
  --load_state "${CHECKPOINT:-runs/length-of-stay-supervised-early$ENC-seed$SEED/best.ckpt}" "$@"
