# Sourced by the scripts: go to the root of the repository and start a Python program there.
#
#   STORE   folder of the store, data/mimic if not set
#   SEED    seed of the run, 0 if not set; --seed after the script's name overrides it. Names of runs end in it, and a
#           script reads the checkpoint of the run with its own seed
#   ENCODER record encoder, lstm if not set: gru_d, tcn, transformer, strats or duett, in the published shape of each.
#           Names of runs have it, and a script reads the checkpoint of the run with its own encoder
#   LAUNCH  what starts the program, python if not set: .venv/bin/python, or "torchrun --nproc-per-node 4" for
#           four GPUs; LAUNCH=echo prints the command
#
# Flags after a script's name override the flags in the script. Paths are relative to the root of the repository.
# SLURM runs a copy of the script from a folder of its own, so a job finds this file in the folder where sbatch was
# called: call sbatch in the root of the repository.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

given=$#                                    # flags after the script's name
[[ ${ENCODER:-} != lstm ]] || unset ENCODER # which names of runs leave out
export ENC=${ENCODER:+-$ENCODER}            # the part of such names
previous=''
for word in "$@"; do # of the script: --seed 1 or --seed=1
    [[ $previous != --seed ]] || SEED=$word
    [[ $word != --seed=* ]] || SEED=${word#--seed=}
    previous=$word
done
SEED=${SEED:-0}

launch() { # launch PROGRAM FLAG ...: replace the shell by the program, so that signals to the job reach the program
    local program=()
    while [[ ${1:---} != --* ]]; do # run_gpu.py, or -m with a module and its command
        program+=("$1")
        shift
    done
    local own=$(($# - given)) # the script's flags
    if [[ -n ${ENCODER:-} && " ${*:1:own} " == *" --ehr_dim "* ]]; then
        set -- "${@:1:own}" --ehr_encoder "$ENCODER" --ehr_dim None --ehr_layers None --ehr_dropout None "${@:own+1}"
    fi
    local word launcher=()
    for word in ${LAUNCH:-python}; do
        launcher+=("$word")
        case $word in
            # of the signals to stop, it passes on those that its flag names; another one ends it alone
            torchrun | */torchrun | torch.distributed.run)
                launcher+=(--signals-to-handle "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2") ;;
        esac
    done
    exec "${launcher[@]}" "${program[@]}" --store "${STORE:-data/mimic}" --seed "$SEED" "$@"
}
