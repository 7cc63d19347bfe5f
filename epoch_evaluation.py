"""Find the best epoch of a pretraining with a linear probe on every checkpoint."""

from training.select_epoch_config import EpochSelectionConfig
from utils.cli import run_cli

MAIN = "training.select_epoch:select_epoch"

if __name__ == "__main__":
    run_cli(MAIN, EpochSelectionConfig)
