"""Command line of the synthetic release: `python -m datasets.synthetic --help`."""

import os

from datasets.synthetic.config import SyntheticConfig
from utils.cli import run_cli

# The tables of a block are small: threads that share one cost more than they save.
THREADS = "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"

if __name__ == "__main__":
    for name in THREADS:
        os.environ.setdefault(name, "1")
    run_cli("datasets.synthetic.release:main", SyntheticConfig)
