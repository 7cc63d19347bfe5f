"""Pretrain the EHR and X-ray encoders with ALIGN: contrastive, with a learned temperature and noisy pairs."""

from training.pretrain import config_for
from utils.cli import run_cli

AlignConfig = config_for("align")
MAIN = "training.pretraining:pretrain"

if __name__ == "__main__":
    run_cli(MAIN, AlignConfig)
