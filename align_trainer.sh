#!/usr/bin/env bash
# Pretrain both encoders with ALIGN on the pairs of phenotyping: the same as tasks/phenotyping/train/align.sh, which
# holds the values.
#SBATCH --job-name=align-phenotyping --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/tasks/launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

exec bash tasks/phenotyping/train/align.sh "$@"
