"""One table of all test scores in a results folder: `python -m evaluation.summary`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.cli import run_cli

ABOUT = ["task", "protocol", "fusion", "objective"]  # what a row of the table says of a run
ORDER = ("random", "ehr", "cxr")  # baselines stand above what is to beat them


@dataclass(frozen=True)
class SummaryConfig:
    """Print the test scores of all runs in a folder of results, means over labels, and the files' paths."""

    results_dir: Path = Path("results")
    """Folder of the result tables, one a task, that run_gpu.py writes."""


def summary(folder: Path) -> str:
    """A line a run: task, protocol, fusion, what pretrained the encoders, its mean test scores in their own
    columns, and n, the number of known labels behind them; then the paths of the tables.

    ValueError if the folder holds no test score.
    """
    paths = sorted(folder.glob("*.csv"))
    rows = pd.concat([pd.read_csv(path) for path in paths]) if paths else pd.DataFrame(columns=["split"])
    rows = rows[rows["split"] == "test"]
    if rows.empty:
        raise ValueError(f"{folder} holds no test score; run_gpu.py writes them, --results_dir says where")
    macro = rows[rows["label"] == "macro"].astype({"n": int})
    names = list(dict.fromkeys(macro["metric"]))
    table = macro.pivot_table("value", [*ABOUT, "run", "started", "n"], "metric", "last").reset_index()
    table["place"] = [
        min(map(_place, pair)) for pair in zip(table["objective"], table["fusion"], strict=True)
    ]
    table = table.sort_values(["task", "protocol", "place", "started"], ascending=[True, False, True, True])
    text = table[[*ABOUT, *names, "n"]].to_string(index=False, float_format="{:.3f}".format, na_rep="")
    return "\n".join([text, *(f"results: {path}" for path in paths)])


def _place(word: str) -> int:
    return ORDER.index(word) if word in ORDER else len(ORDER)


def main(config: SummaryConfig) -> None:
    """Print the table."""
    print(summary(config.results_dir))


if __name__ == "__main__":
    run_cli(main, SummaryConfig)
