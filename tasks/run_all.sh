#!/usr/bin/env bash
# Make the result table of each task in TASK: pretrain, choose the best epochs, evaluate linearly, fine-tune; train the
# supervised baselines and fusions. The same command continues after an interruption. A run with test rows in
# RESULTS/<task>.csv is not run again, so give each store its own RUNS and RESULTS. Names of runs end in their seed.
#   STORE=data/mimic TASK="phenotyping in-hospital-mortality" bash tasks/run_all.sh
#   STORE=data/mimic bash tasks/run_all.sh --seed 1         the same with another seed
#   python -m evaluation.tables table --task phenotyping    means over the seeds
#   LABELS="0.01 0.1 0.5 1" bash tasks/run_all.sh           also with few labels, and a picture of the scores
#   FLOORS=1 ENCODER=transformer bash tasks/run_all.sh      another record encoder, and models without a network
#   STORE=data/demo/store QUICK=1 bash tasks/run_all.sh     small settings, to try it on a CPU
#   LAUNCH=echo bash tasks/run_all.sh                       print the commands
# tools/run_table.py explains all variables. Flags after the script's name go to every pretraining and classifier.
#SBATCH --job-name=run-all --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=7-00:00:00 --signal=B:TERM@120
source "$(dirname "$0")/launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

exec "${PYTHON:-python}" -m tools.run_table "$@"
