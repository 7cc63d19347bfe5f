#!/usr/bin/env bash
# A table from nothing for each task of TASK: pretraining with SimCLR, VICReg and ALIGN, the best epoch of
# each by a linear probe, linear evaluation and fine-tuning from it; the supervised baselines and fusions.
# The same command goes on where it was stopped; a run with test rows in RESULTS/<task>.csv is not run again.
#
#   STORE=data/mimic TASK="phenotyping in-hospital-mortality" bash tasks/run_all.sh
#   STORE=data/mimic RUNS=runs/seed1 RESULTS=results/seed1 bash tasks/run_all.sh --seed 1
#   STORE=data/demo/store QUICK=1 bash tasks/run_all.sh     small settings, to try it on a CPU
#   LAUNCH=echo bash tasks/run_all.sh                       shows the commands
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
export LAUNCH="${LAUNCH:-$PYTHON}"
TASK=${TASK:-phenotyping} QUICK=${QUICK:-}
RUNS=${RUNS:-runs${QUICK:+/quick}} RESULTS=${RESULTS:-results${QUICK:+/quick}}

pretraining=(--save_dir "$RUNS") probing=(--fusion concatenation)
linear=(--save_dir "$RUNS") tuned=("${linear[@]}") fresh=("${linear[@]}") frozen=("${linear[@]}")
if [[ -n $QUICK ]]; then
    small=(--image_size 64 --batch_size 64) backbone=(--vision_backbone resnet18)
    pretraining+=("${small[@]}" "${backbone[@]}" --optimizer adamw --lr 1e-3 --epochs 4 --warmup_epochs 1)
    probing+=(--image_size 64 --epochs 20)
    linear+=("${small[@]}" --epochs 20)
    tuned+=("${small[@]}" --lr 3e-4 --epochs 2)
    fresh+=("${small[@]}" "${backbone[@]}" --lr 3e-4 --epochs 2)
    frozen+=("${small[@]}" --lr 1e-3 --epochs 4)
fi

tested() { # tested NAME: whether the results hold test scores of a run
    grep -qs "^$1,.*,test," "$RESULTS/$task.csv"
}

classify() { # classify NAME SCRIPT FLAG ...: trains and tests a classifier, unless it is in the results
    if tested "$1"; then
        printf '\n== %s is in %s\n' "$1" "$RESULTS/$task.csv"
    else
        printf '\n== %s\n' "$1"
        bash "tasks/$folder/train/$2.sh" --name "$1" --results_dir "$RESULTS" --resume "${@:3}"
    fi
}

best() { # best FOLDER: the checkpoint of the epoch with the largest validation score, or the last one
    local epoch=none
    if [[ -f $1/results_label.csv ]]; then
        epoch=$(awk -F, 'BEGIN { best = "none" }
            NR == 1 { for (i = 1; i <= NF; i++) if ($i == "val_auroc" || $i == "val_kappa") score = i; next }
            $score != "" && (best == "none" || $score + 0 > top) { top = $score + 0; best = int($1) }
            END { print best }' "$1/results_label.csv")
    fi
    find "$1" -name "*_epoch_*.ckpt" 2>/dev/null | grep "_epoch_0*$epoch\.ckpt$" || echo "$1/last.ckpt"
}

pretrained() { # pretrained OBJECTIVE FLAG ...: pretrains encoders, and classifies from them
    local run=$RUNS/$1-$task evaluated=$task-lineareval-concatenation-$1
    local finetuned=$task-finetune-concatenation-$1
    if ! { tested "$evaluated" && tested "$finetuned"; }; then
        printf '\n== %s-%s\n' "$1" "$task"
        bash "tasks/$folder/train/$1.sh" --resume "${pretraining[@]}" "${@:2}"
        if [[ -f epoch_evaluation.py ]]; then
            RUN=$run bash eval_epoch.sh --task "$task" "${probing[@]}"
        fi
    fi
    CHECKPOINT=$(best "$run")
    export CHECKPOINT
    classify "$evaluated" lineareval "${linear[@]}" "${@:2}"
    classify "$finetuned" finetune "${tuned[@]}" "${@:2}"
}

supervised() { # supervised FLAG ...: the baselines, and the fusions, of which early needs the first two
    local fusion
    export CHECKPOINT_EHR=$RUNS/$task-supervised-ehr/best.ckpt
    export CHECKPOINT_CXR=$RUNS/$task-supervised-cxr/best.ckpt
    classify "$task-supervised-ehr" supervised_ehr "${fresh[@]}" "$@"
    classify "$task-supervised-cxr" supervised_cxr "${fresh[@]}" "$@"
    classify "$task-supervised-concatenation" supervised "${fresh[@]}" "$@"
    classify "$task-supervised-early" early "${frozen[@]}" "$@"
    for fusion in joint late unified medfuse medfuse_tokens mmtm daft; do
        classify "$task-supervised-$fusion" "$fusion" "${fresh[@]}" "$@"
    done
}

for task in $TASK; do
    if [[ ! -d tasks/${task//-/_}/train ]]; then
        known=$(cd tasks && ls -d */train | sed 's|/train||; s|_|-|g' | paste -sd ' ')
        echo "error: TASK: there is no task $task; the right ones are $known" >&2
        exit 2
    fi
done
for task in $TASK; do
    folder=${task//-/_}
    for objective in simclr vicreg align; do
        pretrained "$objective" "$@"
    done
    supervised "$@"
done
if compgen -G "$RESULTS/*.csv" >/dev/null; then
    printf '\nTest scores\n'
    "$PYTHON" -m tasks.summary --results_dir "$RESULTS"
fi
