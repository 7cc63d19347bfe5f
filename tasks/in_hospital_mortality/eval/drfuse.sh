#!/usr/bin/env bash
# Test DrFuse for in-hospital-mortality on EHR, and X-ray where there is one.
# The scores go to results/in-hospital-mortality.csv. Set CHECKPOINT to test another classifier.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=in-hospital-mortality-supervised-drfuse-eval --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task in-hospital-mortality --mode eval \
  --protocol supervised --fusion drfuse --data_pairs partial --batch_size 256 --image_size 224 \
  --load_state "${CHECKPOINT:-runs/in-hospital-mortality-supervised-drfuse$ENC-seed$SEED/best.ckpt}" "$@"
