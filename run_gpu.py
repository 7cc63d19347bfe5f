"""Train and evaluate classifiers: supervised, fine-tuned, or linear on the features of frozen encoders."""

from training.classify_config import ClassifyConfig
from utils.cli import run_cli

MAIN = "training.classify:classify"
LATER = ("pandas", "torch.utils.tensorboard", "scipy.optimize")  # of logs and reports, not of a first step

if __name__ == "__main__":
    run_cli(MAIN, ClassifyConfig)
