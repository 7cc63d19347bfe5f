"""MIMIC or MEDS to a store: `python -m datasets.extract --mimic_iv DIR [--mimic_cxr DIR] --out DIR`."""

import os

from datasets.extract_config import ExtractConfig
from utils.cli import run_cli

# Polars' allocator (jemalloc) reads this when it is loaded: it keeps free memory for five seconds, and takes
# large pages where Linux has them, so that the kernel has half as many pages to bring.
MEMORY_OF_POLARS = "thp:always,dirty_decay_ms:5000,muzzy_decay_ms:5000"
os.environ.setdefault("_RJEM_MALLOC_CONF", MEMORY_OF_POLARS)
# Of an extraction; the run itself imports Polars, which starts threads.
LATER = ("pandas", "pyarrow.parquet")

if __name__ == "__main__":
    run_cli("datasets.extraction:main", ExtractConfig)
