"""Find the best epoch of a pretraining: a linear probe on every checkpoint that it left."""

from training.select_epoch import EpochEvaluationConfig, select_epoch
from utils.cli import run_cli

if __name__ == "__main__":
    run_cli(select_epoch, EpochEvaluationConfig)
