"""Pretrain the EHR and X-ray encoders with VICReg across modalities."""

from training.pretrain import config_for
from utils.cli import run_cli

VICRegConfig = config_for("vicreg")
MAIN = "training.pretraining:pretrain"

if __name__ == "__main__":
    run_cli(MAIN, VICRegConfig)
