#!/usr/bin/env bash
# Fine-tune pretrained encoders for phenotyping on EHR and X-ray.
# Val and test scores of the best epoch go to results/phenotyping.csv. Set CHECKPOINT to use other encoders.
# tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name.
#SBATCH --job-name=phenotyping-finetune-concatenation --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch run_gpu.py --task phenotyping --mode train \
  --protocol finetune --fusion concatenation \
  --load_state "${CHECKPOINT:-runs/simclr$ENC-phenotyping-seed$SEED/last.ckpt}" \
  --data_pairs paired --image_size 224 --transforms_cxr simclrv2 --batch_size 256 --patience 30 --min_delta 1e-3 \
  --epochs 300 --optimizer adamw --lr 1e-3 --weight_decay 0.01 --schedule step --milestones 0.6 0.8 --gamma 0.1 "$@"
