#!/usr/bin/env bash
# Find the best epoch of a pretraining: train a linear probe on the checkpoint of every epoch and compare on val.
# Writes results_label_<task>.csv and its curve (PNG) into the folder of the pretraining. The same command continues
# after an interruption. --task phenotyping,in-hospital-mortality probes for several tasks at once.
# The settings are those published for this purpose: shorter passes than those of lineareval.sh, as epochs are many.
# RUN is the folder of the pretraining. tasks/launch.sh explains STORE, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=eval-epoch --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/tasks/launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch epoch_evaluation.py --run_dir "${RUN:-runs/simclr$ENC-phenotyping-seed$SEED}" --task phenotyping \
  --fusion concatenation --fusion_layer 0 --data_pairs paired --batch_size 512 --image_size 224 \
  --epochs 100 --lr 0.01 --weight_decay 0.01 "$@"
