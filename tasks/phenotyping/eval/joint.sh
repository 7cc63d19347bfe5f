#!/usr/bin/env bash
# Test joint fusion for phenotyping on EHR and X-ray.
# The scores go to results/phenotyping.csv. Set CHECKPOINT to test another classifier.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=phenotyping-supervised-joint-eval --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task phenotyping --mode eval \
  --protocol supervised --fusion joint --data_pairs paired --batch_size 256 --image_size 224 \
  --load_state "${CHECKPOINT:-runs/phenotyping-supervised-joint$ENC-seed$SEED/best.ckpt}" "$@"
