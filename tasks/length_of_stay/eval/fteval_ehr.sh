#!/usr/bin/env bash
# Test the fine-tuned classifier for length-of-stay on the EHR of paired stays.
# The scores go to results/length-of-stay.csv. Set CHECKPOINT to test another classifier.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=length-of-stay-finetune-ehr-eval --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task length-of-stay --mode eval \
  --protocol finetune --fusion ehr --data_pairs ehr --batch_size 256 \
  --load_state "${CHECKPOINT:-runs/length-of-stay-finetune-ehr$ENC-simclr-seed$SEED/best.ckpt}" "$@"
