#!/usr/bin/env bash
# A table from nothing for each task of TASK: pretraining with every objective of OBJECTIVES, the best epoch
# of each by a linear probe, linear evaluation and fine-tuning from it; the supervised baselines and fusions.
# The same command goes on where it was stopped; a run with test rows in RESULTS/<task>.csv is not run again,
# whatever its store and seed: give each of them its own RUNS and RESULTS.
#
#   STORE=data/mimic TASK="phenotyping in-hospital-mortality" bash tasks/run_all.sh
#   STORE=data/mimic RUNS=runs/seed1 RESULTS=results/seed1 bash tasks/run_all.sh --seed 1
#   python -m evaluation.tables table --task phenotyping --results_dir results/seed1 results/seed2
#   STORE=data/demo/store QUICK=1 bash tasks/run_all.sh     small settings, to try it on a CPU
#   LAUNCH=echo bash tasks/run_all.sh                       shows the commands
#
# OBJECTIVES  those of the paper, simclr vicreg align; there are also tsimclr clip siglip
# PAIRS       task whose pairs the encoders learn from for all tasks; empty: each task's own, as in the paper
# FUSIONS_OF  tasks to train the supervised baselines and fusions for; all of TASK if it is not given
# JOBS        runs at once, 1 if not given; the output of each is then in RUNS/<name>.log
#
# Flags after the script's name go to every pretraining and every classifier, and win over all others.
# LAUNCH="torchrun --nproc-per-node 4" is for four GPUs. Paths count from the root of the repository; call
# sbatch there.
#SBATCH --job-name=run-all
#SBATCH --output=run-all-%j.out
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=7-00:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
root="$(dirname "$0")/.."
[[ -f "$root/run_gpu.py" ]] || root="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy that lies elsewhere
cd "$root"
PYTHON=${PYTHON:-python}
TASK=${TASK:-phenotyping} QUICK=${QUICK:-} PAIRS=${PAIRS:-} JOBS=${JOBS:-1}
OBJECTIVES=${OBJECTIVES:-simclr vicreg align} FUSIONS_OF=${FUSIONS_OF-$TASK}
RUNS=${RUNS:-runs${QUICK:+/quick}} RESULTS=${RESULTS:-results${QUICK:+/quick}}

if ((JOBS > 1)); then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((($(nproc) + JOBS - 1) / JOBS))}; fi

if [[ -n $QUICK && -z ${LAUNCH:-} ]]; then # short runs: imports once for all of them
    exec 3< <("$PYTHON" -m utils.forks serve simclr_trainer vicreg_trainer align_trainer epoch_evaluation run_gpu)
    read -r -u 3 socket
    LAUNCH="$PYTHON -SE utils/forks.py run $socket"
fi
export LAUNCH="${LAUNCH:-$PYTHON}"

pretraining=(--save_dir "$RUNS") probing=(--fusion concatenation)
declare -A tuned_for=()
linear=(--save_dir "$RUNS") tuned=("${linear[@]}") fresh=("${linear[@]}") frozen=("${linear[@]}")
if [[ -n $QUICK ]]; then
    small=(--image_size 32 --every_hours 24) backbone=(--vision_backbone resnet18)
    pretraining+=("${small[@]}" "${backbone[@]}" --batch_size 64 --transforms_cxr supervised
        --optimizer adamw --lr 1e-3 --epochs 5 --warmup_epochs 1)
    probing+=("${small[@]}" --epochs 30)
    linear+=("${small[@]}" --batch_size 256 --epochs 60 --lr 1e-2)
    tuned+=("${small[@]}" --transforms_cxr supervised --schedule cosine
        --batch_size 32 --lr 3e-4 --head_lr 3e-3 --epochs 6)
    tuned_for=(
        [in-hospital-mortality]="--batch_size 16"
        [decompensation]="--batch_size 16 --epochs 3"
        [length-of-stay]="--batch_size 16 --lr 3e-5 --head_lr 1e-2 --epochs 2"
        [radiology]="--epochs 2"
        [readmission]="--epochs 8"
    )
    fresh+=("${small[@]}" "${backbone[@]}" --batch_size 32 --lr 1e-3 --epochs 2)
    frozen+=("${small[@]}" --batch_size 64 --lr 2e-3 --epochs 8)
fi

# A signal to this script is one to all that it started; they save, and nothing more is started.
trap 'trap "" TERM INT; kill $(jobs -p) 2>/dev/null; wait; exit 143' TERM INT

start() { # start NAME COMMAND ...: runs it and waits, or beside others if there are JOBS
    printf '\n== %s\n' "$1"
    if ((JOBS == 1)); then
        "${@:2}" & # bash heeds a signal while it waits, not while a program is in front
        wait $!
        return
    fi
    while (($(jobs -rp | wc -l) >= JOBS)); do wait -n || fail; done
    mkdir -p "$RUNS"
    "${@:2}" >"$RUNS/$1.log" 2>&1 &
}

finish() { # finish: ends when all that was started has ended, with the status of what failed
    local job
    for job in $(jobs -p); do wait "$job" || fail; done
}

fail() { # fail: ends this script after what runs beside the run that failed
    echo "error: a run failed; its message ends its file: $(ls -t "$RUNS"/*.log | paste -sd ' ')" >&2
    wait
    exit 1
}

tested() { # tested NAME: whether the results hold test scores of a run
    grep -qs "^$1,.*,test," "$RESULTS/$task.csv"
}

classify() { # classify NAME SCRIPT FLAG ...: trains and tests a classifier, unless it is in the results
    if tested "$1"; then
        printf '\n== %s is in %s\n' "$1" "$RESULTS/$task.csv"
    else
        start "$1" bash "tasks/$folder/train/$2.sh" --name "$1" --results_dir "$RESULTS" --resume "${@:3}"
    fi
}

best() { # best FOLDER: the checkpoint of the epoch with the largest validation score of the task, or the last
    local epoch=none table=$1/results_label_$task.csv
    if [[ -f $table ]]; then
        epoch=$(awk -F, 'BEGIN { best = "none" }
            NR == 1 { for (i = 1; i <= NF; i++) if ($i == "val_auroc" || $i == "val_kappa") score = i; next }
            $score != "" && (best == "none" || $score + 0 > top) { top = $score + 0; best = int($1) }
            END { print best }' "$table")
    fi
    find "$1" -name "*_epoch_*.ckpt" 2>/dev/null | grep "_epoch_0*$epoch\.ckpt$" || echo "$1/last.ckpt"
}

pretrain() { # pretrain TASK OBJECTIVE FLAG ...: both encoders on the pairs of a task
    local script=$2 special=()
    case $2 in
        tsimclr | clip | siglip) script=simclr special=(--objective "$2" --name "$2-$1") ;;&
        clip | siglip) special+=(--optimizer adamw --lr 1e-4) ;;
    esac
    start "$2-$1" bash "tasks/${1//-/_}/train/$script.sh" --resume "${special[@]}" "${pretraining[@]}" \
        "${@:3}"
}

to_do() { # to_do OBJECTIVE TASK ...: those of the tasks that lack a classifier on the objective's encoders
    local task protocol
    for task in "${@:2}"; do
        for protocol in lineareval finetune; do
            if ! tested "$task-$protocol-concatenation-$1"; then
                echo "$task"
                break
            fi
        done
    done
}

pretrained() { # pretrained PAIRS TASKS FLAG ...: encoders from the pairs of a task, and the TASKS from them
    local left objective
    for objective in $OBJECTIVES; do
        if [[ -n $(to_do "$objective" $2) ]]; then pretrain "$1" "$objective" "${@:3}"; fi
    done
    finish
    for objective in $OBJECTIVES; do
        left=$(to_do "$objective" $2 | paste -sd ,)
        if [[ -n $left ]]; then
            RUN=$RUNS/$objective-$1 start "$objective-$1-epochs" bash eval_epoch.sh --task "$left" \
                "${probing[@]}"
        fi
    done
    finish
    for task in $2; do
        folder=${task//-/_}
        for objective in $OBJECTIVES; do
            CHECKPOINT=$(best "$RUNS/$objective-$1")
            export CHECKPOINT
            classify "$task-lineareval-concatenation-$objective" lineareval "${linear[@]}" "${@:3}"
            classify "$task-finetune-concatenation-$objective" finetune "${tuned[@]}" \
                ${tuned_for[$task]:-} "${@:3}"
        done
    done
}

supervised() { # supervised FLAG ...: the baselines, and the fusions, of which early needs the first two
    local fusion
    export CHECKPOINT_EHR=$RUNS/$task-supervised-ehr/best.ckpt
    export CHECKPOINT_CXR=$RUNS/$task-supervised-cxr/best.ckpt
    classify "$task-supervised-ehr" supervised_ehr "${fresh[@]}" "$@"
    classify "$task-supervised-cxr" supervised_cxr "${fresh[@]}" "$@"
    finish
    classify "$task-supervised-concatenation" supervised "${fresh[@]}" "$@"
    classify "$task-supervised-early" early "${frozen[@]}" "$@"
    for fusion in joint late unified medfuse medfuse_tokens mmtm daft; do
        classify "$task-supervised-$fusion" "$fusion" "${fresh[@]}" "$@"
    done
}

for task in $TASK $FUSIONS_OF $PAIRS; do
    if [[ ! -d tasks/${task//-/_}/train ]]; then
        known=$(cd tasks && ls -d */train | sed 's|/train||; s|_|-|g' | paste -sd ' ')
        echo "error: TASK: there is no task $task; the right ones are $known" >&2
        exit 2
    fi
done
if [[ -n $PAIRS ]]; then
    pretrained "$PAIRS" "$TASK" "$@"
else
    for task in $TASK; do pretrained "$task" "$task" "$@"; done
fi
for task in $FUSIONS_OF; do
    folder=${task//-/_}
    supervised "$@"
done
finish
if compgen -G "$RESULTS/*.csv" >/dev/null; then
    printf '\nTest scores\n'
    "$PYTHON" -m evaluation.tables summary --results_dir "$RESULTS"
fi
