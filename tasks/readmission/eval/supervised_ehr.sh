#!/usr/bin/env bash
# Test the supervised classifier for readmission on the EHR of paired stays.
# The scores go to results/readmission.csv. Set CHECKPOINT to test another classifier.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=readmission-supervised-ehr-eval --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task readmission --mode eval \
  --protocol supervised --fusion ehr --data_pairs ehr --batch_size 256 \
  --load_state "${CHECKPOINT:-runs/readmission-supervised-ehr$ENC-seed$SEED/best.ckpt}" "$@"
