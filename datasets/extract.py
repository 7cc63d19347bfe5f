"""MIMIC or MEDS to a store: `python -m datasets.extract --mimic_iv DIR [--mimic_cxr DIR] --out DIR`."""

from datasets.extract_config import ExtractConfig
from utils.cli import run_cli

# Of an extraction; the run itself imports Polars, which starts threads.
LATER = ("pandas", "pyarrow.parquet")

if __name__ == "__main__":
    run_cli("datasets.extraction:main", ExtractConfig)
