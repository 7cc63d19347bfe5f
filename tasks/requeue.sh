#!/usr/bin/env bash
# Runs a script in a job that goes on by itself after its time limit or a preemption: on SIGTERM the program
# saves, the job returns to the queue, and starts again where it was. A script that ends, or fails, ends it.
#
#   sbatch tasks/requeue.sh tasks/phenotyping/train/simclr.sh --seed 1
#   sbatch --time=04:00:00 --gres=gpu:4 tasks/requeue.sh tasks/run_all.sh
#
# It adds --resume where the script does not go on without. The #SBATCH lines below count, not those of the
# script. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name=requeue
#SBATCH --output=requeue-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2

case "${1:-}" in
    "") echo "error: say which script, for example tasks/phenotyping/train/simclr.sh" >&2; exit 2 ;;
    *eval_epoch.sh | *run_all.sh) ;;
    *) set -- "$@" --resume ;;
esac
asked= program=
trap 'asked=yes; kill -TERM $program 2>/dev/null' TERM
bash "$@" &
program=$!
while true; do # a signal ends wait before the program has ended
    wait "$program"
    status=$?
    kill -0 "$program" 2>/dev/null || break
done
if [[ -n $asked ]]; then
    scontrol requeue "${SLURM_JOB_ID:?}"
    exit
fi
exit "$status"
