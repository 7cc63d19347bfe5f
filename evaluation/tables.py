"""Tables of results: all runs, means over seeds, a table for a paper, and the difference between runs."""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from evaluation.compare import Compare, print_comparison
from evaluation.layout import Page, cell, columns_that_tell, common_values, interval, render
from evaluation.names import DETAILS, data_notice
from evaluation.paper import Paper, make_paper_table
from evaluation.results import read_results
from evaluation.row_notes import CLASSIFIER, explain_settings, number_classifiers
from evaluation.seeds import CONTEXT, METHOD, RowSelection, checkpoint_names, over_seeds, select_rows
from utils.cli import run_cli

BASELINES = ("random", "ehr", "cxr")  # objectives and fusions that come first in the summary
# said once if all runs share them
RUN_CONTEXT = ["seed", *CONTEXT[:-1]]
RUN_DETAILS = ["checkpoint_hash", "run", "started", "source"]  # shown where rows look alike


@dataclass(frozen=True)
class Summary:
    """List the test scores of all runs, means over labels, and the paths of the result tables.

    A run that was repeated, or evaluated again with --mode eval, has a row for each time. n counts the known
    labels: samples times labels.
    """

    results_dir: Path = Path("results")
    """Folder of the result tables, one per task, that run_gpu.py writes."""


@dataclass(frozen=True)
class Table(RowSelection):
    """Average the runs of a task over seeds: mean, standard deviation and intervals.

    Only runs that differ in their seed alone are averaged: protocol, fusion, objective, data, --data_pairs,
    --label_fraction and all other settings are equal. What is not counted, and why, stands below the table.
    """

    format: Literal["text", "markdown", "latex", "csv"] = "text"
    """Format of the table; latex needs the package booktabs."""


def summary(folder: Path, tasks: Collection[str] | None = None) -> str:
    """Return the test scores of each run with their intervals, a block per task, then the files' paths.

    `tasks` are those to show, all if not given.
    """
    paths = [path for path in sorted(folder.glob("*.csv")) if tasks is None or path.stem in tasks]
    tables = [read_results(path) for path in paths] or [pd.DataFrame(columns=["split", "label"])]
    rows = pd.concat(tables, ignore_index=True)
    rows = rows[(rows["split"] == "test") & (rows["label"] == "macro")]
    if rows.empty:
        raise ValueError(f"{folder} has no test scores; run_gpu.py writes them, --results_dir says where")
    blocks = [render(_summary_page(str(task), part), "text") for task, part in rows.groupby("task")]
    return "\n".join([*(f"{block}\n" for block in blocks), *(f"results: {path}" for path in paths)])


def _summary_page(task: str, rows: pd.DataFrame) -> Page:
    keys = [*METHOD, *RUN_CONTEXT, "n", "settings", *RUN_DETAILS, "classifiers"]
    rows = rows.assign(classifiers=checkpoint_names(rows))
    rows = rows[~rows["metric"].isin(DETAILS)]
    metrics = list(dict.fromkeys(rows["metric"]))
    rows = rows.astype({"seed": "Int64", "n": "Int64"})
    rows["cell"] = [cell(*scores) for scores in rows[["value", "low", "high"]].itertuples(index=False)]
    rows["line"] = rows.groupby(keys, dropna=False, sort=False).ngroup()
    cells = rows.drop_duplicates(["line", "metric"], keep="last").pivot(
        index="line", columns="metric", values="cell"
    )
    table = rows.drop_duplicates("line").set_index("line")[keys].join(cells)
    baseline = table[["objective", "fusion"]].map(_baseline_order).min(axis=1)
    order = {"protocol": False, "baseline": True, "started": True}  # whether ascending
    table = table.assign(baseline=baseline).sort_values(list(order), ascending=list(order.values()))
    table, classifiers = number_classifiers(table)
    methods = columns_that_tell(table, METHOD, [*CONTEXT[:-1], CLASSIFIER], ["settings"])
    settings = [name for name in methods if name == "settings"]  # of runs that look alike but for their seeds
    shown = columns_that_tell(table, METHOD, [*RUN_CONTEXT, CLASSIFIER, *settings], RUN_DETAILS, ["n"])
    table, explained = explain_settings(table, rows, shown)
    notes = [*common_values(table, [*RUN_CONTEXT, "n"]), *classifiers, *explained]
    table = table[[*shown, *metrics]].fillna("").reset_index(drop=True)
    return Page(f"{task}, test", data_notice(rows["data"]), table, notes)


def make_table(config: Table) -> str:
    """Return the means over seeds, with what the data are, and what is not counted.

    In a CSV, the data are a column, and what is not counted goes to standard error.
    """
    rows, lines = select_rows(config)
    means = over_seeds(rows)
    if config.format == "csv":
        print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
        return str(means.to_csv(index=False)).rstrip("\n")
    means, classifiers = number_classifiers(means)
    shown = columns_that_tell(means, METHOD, [*CONTEXT[:-1], CLASSIFIER], ["settings", "group"])
    means, explained = explain_settings(means, rows, shown)
    of_seeds = means[["seeds_low", "seeds_high", "seeds"]].itertuples(index=False)
    of_subjects = means[["low", "high"]].itertuples(index=False)
    table = means[[*shown, "metric"]].assign(
        mean=means["mean"].map("{:.4f}".format),
        sd=means["sd"].map("{:.4f}".format).replace("nan", ""),
        seeds=means["seeds"],
        over_seeds=[interval(low, high, 4) or (f"n = {n}" if n > 1 else "") for low, high, n in of_seeds],
        over_subjects=[interval(low, high, 4) for low, high in of_subjects],
    )
    if (means["checkpoints"] > 1).any():
        table.insert(table.columns.get_loc("over_seeds"), "checkpoints", means["checkpoints"])
    notes = [*common_values(means, CONTEXT[:-1]), *classifiers, *explained, *lines]
    title = f"{config.task}, {config.split}, {config.label}"
    return render(Page(title, data_notice(means["data"]), table, notes), config.format)


def _baseline_order(name: str) -> int:
    return BASELINES.index(name) if name in BASELINES else len(BASELINES)


Command = Summary | Table | Paper | Compare


def main(command: Command) -> None:
    """Print a table of results."""
    if isinstance(command, Summary):
        print(summary(command.results_dir))
    elif isinstance(command, Table):
        print(make_table(command))
    elif isinstance(command, Paper):
        print(make_paper_table(command))
    else:
        print_comparison(command)


if __name__ == "__main__":
    run_cli(main, Command)
