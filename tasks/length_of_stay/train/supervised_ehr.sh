#!/usr/bin/env bash
# Train the supervised classifier for length-of-stay on the EHR of paired stays.
# The learning rate is as published for ehr on phenotyping; none is published for this script.
# Val and test scores of the best epoch go to results/length-of-stay.csv.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=length-of-stay-supervised-ehr --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task length-of-stay --mode train \
  --protocol supervised --fusion ehr --data_pairs ehr --ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3 \
  --batch_size 16 --epochs 50 --optimizer adam --lr 5.3985e-4 --weight_decay 0 \
  --schedule plateau --gamma 0.5 --plateau_patience 10 --patience 30 --min_delta 1e-3 "$@"
