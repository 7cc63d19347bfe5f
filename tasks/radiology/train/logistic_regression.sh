#!/usr/bin/env bash
# Fit logistic regression for radiology on summary statistics of the EHR, as a floor for the networks.
# Val and test scores of the settings that validation chooses go to results/radiology.csv.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=radiology-logistic-regression --output=%x-%j.out
#SBATCH --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch -m training.baselines --task radiology \
  --model logistic_regression --data_pairs ehr_all "$@"
