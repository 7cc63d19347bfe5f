"""Command line of the synthetic release: `python -m datasets.synthetic --help`."""

from datasets.synthetic.release import SyntheticConfig, main
from utils.cli import run_cli

if __name__ == "__main__":
    run_cli(main, SyntheticConfig)
