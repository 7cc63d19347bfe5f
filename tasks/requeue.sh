#!/usr/bin/env bash
# Run a script in a job that continues by itself after its time limit or a preemption. On SIGTERM, SIGUSR1 or SIGUSR2
# the program saves, the job returns to the queue, and it later continues from there. The job ends when the script ends
# or fails.
#
#   sbatch tasks/requeue.sh tasks/phenotyping/train/simclr.sh --seed 1
#   sbatch --time=04:00:00 --gres=gpu:4 tasks/requeue.sh tasks/run_all.sh
#
# Adds --resume for the scripts that need it. The #SBATCH lines below apply, not those of the script. Call sbatch in the
# root of the repository.
#SBATCH --job-name=requeue --output=%x-%j.out --open-mode=append --requeue
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2

case "${1:-}" in
    "") echo "error: name a script, for example tasks/phenotyping/train/simclr.sh" >&2; exit 2 ;;
    *eval_epoch.sh | *run_all.sh) ;; # continue without a flag
    *) set -- "$@" --resume ;;
esac
stopped='' program=''
trap 'stopped=yes; kill -TERM $program 2>/dev/null' TERM USR1 USR2
bash "$@" &
program=$!
while true; do # a signal interrupts wait before the program has ended
    wait "$program"
    status=$?
    kill -0 "$program" 2>/dev/null || break
done
[[ -n $stopped ]] || exit "$status"
scontrol requeue "${SLURM_JOB_ID:?}"
