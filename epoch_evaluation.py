"""Find the best epoch of a pretraining with a linear probe on every checkpoint."""

from training.select_epoch import EpochSelectionConfig, select_epoch
from utils.cli import run_cli

if __name__ == "__main__":
    run_cli(select_epoch, EpochSelectionConfig)
