#!/usr/bin/env bash
# The main job from nothing, in minutes on two cores: records and X-rays -> store -> SimCLR -> linear
# evaluation and fine-tuning of two tasks -> one table. Run it by `make demo`; it starts afresh each time.
#
#   SEED=1 bash demo.sh                          synthetic patients of another seed
#   PATIENTS=5000 bash demo.sh                   more of them
#   MIMIC_IV=../mimic-iv-demo bash demo.sh       a real MIMIC-IV folder, with synthetic X-rays for its stays
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python} SEED=${SEED:-0} PATIENTS=${PATIENTS:-3000} MIMIC_IV=${MIMIC_IV:-}

name=demo${MIMIC_IV:+-real}
data=data/$name runs=runs/$name results=results/$name
rm -rf "$data" "$runs" "$results"

step() { # step "what is done" command ...: runs it and tells how long it took
    local began=$SECONDS
    printf '\n== %s\n' "$1"
    "${@:2}"
    printf '== done in %d s\n' $((SECONDS - began))
}

if [ -n "$MIMIC_IV" ]; then
    raw=$MIMIC_IV epochs=10
    about="real records with SYNTHETIC X-rays: these scores mean nothing clinically"
    make_raw=(--for_stays "$MIMIC_IV")
else
    raw=$data/raw/mimic-iv epochs=8
    about="SYNTHETIC data: these scores mean nothing clinically"
    make_raw=(--patients "$PATIENTS")
fi
trial=(--store "$data/store" --save_dir "$runs" --seed "$SEED" --image_size 32)
pretrained=$runs/simclr/last.ckpt

start() { # start NAME FLAG ...: a classifier, two at a time; what it tells is in a file
    while (($(jobs -rp | wc -l) >= 2)); do wait -n; done
    printf '%s\n' "$1: $runs/$1.log"
    OMP_NUM_THREADS=$((($(nproc) + 1) / 2)) "${launch[@]}" run_gpu.py --name "$1" \
        --results_dir "$results" "${trial[@]}" "${@:2}" >"$runs/$1.log" 2>&1 &
}
classify() { # all classifiers of both tasks, the longest first
    local tasks=(phenotyping in-hospital-mortality) task fusion
    trap 'kill $(jobs -p) 2>/dev/null; tail -qn 1 $(ls -t "$runs"/*.log | head -n 2) >&2' EXIT
    for task in "${tasks[@]}"; do # all weights, from SimCLR's
        start "$task-finetune" --protocol finetune --task "$task" --load_state "$pretrained" \
            --epochs 1 --lr 3e-5 --head_lr 1e-2 --batch_size 32
    done
    for task in "${tasks[@]}"; do # one linear layer on frozen encoders, SimCLR's together and alone or random ones
        local lineareval=(--protocol lineareval --task "$task" --epochs 100 --lr 1e-3 --batch_size 512)
        for fusion in concatenation ehr cxr; do
            start "$task-lineareval-$fusion" "${lineareval[@]}" --load_state "$pretrained" --fusion "$fusion"
        done
        start "$task-lineareval-random" "${lineareval[@]}" --load_state random --vision_backbone resnet18
    done
    while (($(jobs -p | wc -l))); do wait -n; done
    trap - EXIT
}

step "raw data" "$PYTHON" -m datasets.synthetic "${make_raw[@]}" --out "$data/raw" --seed "$SEED" \
    --image_size 64 --paired 0.9 --workers 0
step "extraction" "$PYTHON" -m datasets.extract --mimic_iv "$raw" --mimic_cxr "$data/raw/mimic-cxr-jpg" \
    --out "$data/store"
exec 3< <("$PYTHON" -m utils.forks serve simclr_trainer run_gpu) # imports once for all runs
read -r -u 3 socket
launch=("$PYTHON" -SE utils/forks.py run "$socket")
step "SimCLR pretraining" "${launch[@]}" simclr_trainer.py "${trial[@]}" --name simclr \
    --task in-hospital-mortality --vision_backbone resnet18 --transforms_cxr supervised --batch_size 128 \
    --optimizer adamw --lr 2e-3 --epochs "$epochs" --warmup_epochs 1
step "linear evaluation and fine-tuning of two tasks" classify
printf '\nTest scores on %s\n' "$about"
"$PYTHON" -m evaluation.tables summary --results_dir "$results"
printf '\nall of it took %d s\n' "$SECONDS"
