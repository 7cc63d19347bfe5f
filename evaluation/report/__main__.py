"""The command line of the page: `python -m evaluation.report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from utils.cli import run_cli


@dataclass(frozen=True)
class ReportConfig:
    """Write one HTML page on many runs: tables with marks, curves, subgroups, the cohort and passports.

    It is made of the result tables and of small files in the folders of the runs and stores; what is not
    there is left out and named. The page needs no network: open it in a browser, or print it.
    """

    results_dir: tuple[Path, ...] = (Path("results"),)
    """Folder of the result tables, one per task, that run_gpu.py writes; or several."""
    save_dir: tuple[Path, ...] = (Path("runs"),)
    """Folders that hold the folders of the runs."""
    store: tuple[Path, ...] = ()
    """Folders of stores, for the flow of the cohort; those that the runs name are found without it."""
    split: str = "test"
    """Split whose scores are shown."""
    out: Path = Path("report.html")
    """File to write."""


if __name__ == "__main__":
    run_cli("evaluation.report.page:write_report", ReportConfig)
