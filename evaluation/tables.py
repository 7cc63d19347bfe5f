"""Tables of results: all runs, means over seeds, and the difference between two (`--help` shows how)."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro
from scipy import stats

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resampled, Resamples
from evaluation.metrics import Score
from evaluation.predictions import Predictions, read_predictions, to_arrays
from evaluation.results import read_rows
from utils.cli import run_cli

SAMPLE_COLUMNS = ("stay_id", "subject_id", "end_hours", "label", "truth")  # equal in two runs to compare
RUN_KEYS = ["protocol", "fusion", "objective"]  # equal in runs that differ in their seed alone
BASELINES = ("random", "ehr", "cxr")  # objectives and fusions that come first in the summary
Format = Literal["text", "markdown", "latex", "csv"]


@dataclass(frozen=True)
class Compare:
    """Compare the predictions of two runs by a paired bootstrap over subjects."""

    run_a: tyro.conf.Positional[Path]
    """Folder of a run, with its predictions_<split>.csv."""
    run_b: tyro.conf.Positional[Path]
    """Folder of the run to compare it with."""
    split: str = "test"
    """Split whose predictions are compared."""
    labels: bool = False
    """Also compare each label."""
    resamples: int = 1000
    """Resamples of the subjects."""
    seed: int = 0
    """Seed of the resamples."""

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, not {self.resamples}")


def compare(config: Compare) -> pd.DataFrame:
    """Return a row per score: label, metric, a, b, difference (b - a), its 95 % interval, p and n."""
    name = f"predictions_{config.split}.csv"
    a, b = _read_pair(Path(config.run_a) / name, Path(config.run_b) / name)
    resamples = Resamples.of(a.subject_id, config.resamples, config.seed)
    scores_a, resampled_a = _evaluate(a, resamples)
    scores_b, resampled_b = _evaluate(b, resamples)
    rows = []
    for score_a, score_b in zip(scores_a, scores_b, strict=True):
        key = score_a["label"], score_a["metric"]
        if not config.labels and score_a["label"] != "macro":
            continue
        differences = resampled_b[key] - resampled_a[key]
        low, high = bootstrap.interval(differences)
        difference = score_b["value"] - score_a["value"]
        p = p_value(differences)
        rows.append((*key, score_a["value"], score_b["value"], difference, low, high, p, score_a["n"]))
    columns = ("label", "metric", "a", "b", "difference", "low", "high", "p", "n")
    return pd.DataFrame(rows, columns=columns)


def p_value(differences: np.ndarray) -> float:
    """Return the two-sided p value of the hypothesis that two scores are equal.

    It is twice the share of resamples in which the difference [R] has the other sign or is 0, ignoring NaN;
    never below 2 / (R + 1), and NaN if R is 0.

    >>> p_value(np.array([0.1, 0.2, 0.3])), p_value(np.array([-0.1, 0.2, 0.3, 0.4, 0.5]))
    (0.5, 0.6666666666666666)
    """
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return np.nan
    fewer = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, float(2 * (fewer + 1) / (len(differences) + 1)))


def _read_pair(path_a: Path, path_b: Path) -> tuple[Predictions, Predictions]:
    a, b = read_predictions(path_a), read_predictions(path_b)
    if len(a) != len(b):
        difference = f"{len(a)} and {len(b)} rows"
    else:
        difference = ", ".join(name for name in SAMPLE_COLUMNS if not a[name].equals(b[name]))
    if difference:
        raise ValueError(
            f"{path_a} and {path_b} are of different samples ({difference}); "
            "evaluate both with the same --task, --store, --data_pairs and --retrieve_cxr"
        )
    return to_arrays(a, path_a), to_arrays(b, path_b)


def _evaluate(predictions: Predictions, resamples: Resamples) -> tuple[list[Score], Resampled]:
    kind, labels, _, truth, probability = predictions
    scores = metrics.evaluate(kind, labels, {}, truth, probability)
    return scores, bootstrap.evaluate(kind, labels, {}, truth, probability, resamples)


def print_comparison(config: Compare) -> None:
    """Print the comparison."""
    table = compare(config)
    print(f"a: {config.run_a}\nb: {config.run_b}\n{config.split}, {config.resamples} resamples of subjects")
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))


@dataclass(frozen=True)
class Summary:
    """List the test scores of all runs, means over labels, and the paths of the result tables.

    A run that was repeated, or evaluated again with --mode eval, has a row for each time.
    """

    results_dir: Path = Path("results")
    """Folder of the result tables, one per task, that run_gpu.py writes."""


@dataclass(frozen=True)
class Table:
    """Average the runs of a task over seeds: mean, standard deviation and intervals.

    Of runs with the same settings and seed the last one counts; --mode eval of a run in the table does not.
    """

    task: str
    """Task whose results are read."""
    results_dir: tuple[Path, ...] = (Path("results"),)
    """Folder of the result tables, one per task, that run_gpu.py writes; or several, such as one per seed."""
    metric: str = ""
    """Only this score, such as auroc; empty: all."""
    label: str = "macro"
    """Only this label; macro is the mean over labels, and macro[sex=F] that of a subgroup."""
    split: str = "test"
    """Only this split."""
    format: Format = "text"
    """Format of the table."""


def summary(folder: Path) -> str:
    """Return a table of settings, mean test scores and known labels (n) per run, then the files' paths."""
    paths = sorted(folder.glob("*.csv"))
    rows = pd.concat([_read_results(path) for path in paths] or [pd.DataFrame(columns=["split"])])
    rows = rows[rows["split"] == "test"]
    if rows.empty:
        raise ValueError(f"{folder} has no test scores; run_gpu.py writes them, --results_dir says where")
    rows = rows[rows["label"] == "macro"].astype({"n": int})
    metrics = list(dict.fromkeys(rows["metric"]))
    keys = ["task", *RUN_KEYS]
    rows = rows.drop_duplicates([*keys, "run", "started", "n", "metric"], keep="last")
    table = rows.pivot(index=[*keys, "run", "started", "n"], columns="metric", values="value").reset_index()
    table["baseline"] = table[["objective", "fusion"]].map(_baseline_order).min(axis=1)
    order = {"task": True, "protocol": False, "baseline": True, "started": True}  # whether ascending
    table = table.sort_values(list(order), ascending=list(order.values()))
    text = table[[*keys, *metrics, "n"]].to_string(index=False, float_format="{:.3f}".format, na_rep="")
    return "\n".join([text, *(f"results: {path}" for path in paths)])


def select_rows(config: Table) -> pd.DataFrame:
    """Return the result rows to average, without those that --mode eval added for a run in the same file."""
    paths = [folder / f"{config.task}.csv" for folder in config.results_dir]
    rows = pd.concat([_without_evaluations(_read_results(path)) for path in paths], ignore_index=True)
    for name, value in (("split", config.split), ("label", config.label), ("metric", config.metric)):
        available = ", ".join(rows[name].unique())
        rows = rows[rows[name] == value] if value else rows
        if rows.empty:
            files = ", ".join(map(str, paths))
            raise ValueError(f"{files}: no row has --{name} {value}; available: {available}")
    return rows


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Average result rows of one label and split: a row per protocol, fusion, objective and metric.

    `seeds` is the number of runs; `seeds_low` and `seeds_high` are the 95 % interval of their mean (Student's
    t), NaN for one; `low` and `high` are the means of the ends of the runs' intervals over subjects.
    """
    rows = rows.sort_values("started", kind="stable")
    rows = rows.drop_duplicates([*RUN_KEYS, "metric", "seed"], keep="last")
    table = rows.groupby([*RUN_KEYS, "metric"], sort=False, dropna=False).agg(
        seeds=("value", "count"),
        mean=("value", "mean"),
        sd=("value", "std"),
        low=("low", "mean"),
        high=("high", "mean"),
    )
    half_width = stats.t.ppf(0.975, table["seeds"] - 1) * table["sd"] / np.sqrt(table["seeds"])
    table.insert(3, "seeds_low", table["mean"] - half_width)
    table.insert(4, "seeds_high", table["mean"] + half_width)
    return table.reset_index()


def superseded_runs(rows: pd.DataFrame) -> list[str]:
    """Return a line per run that is not counted, because a later one has the same settings and seed."""
    rows = rows.sort_values("started", kind="stable")
    names = rows.groupby([*RUN_KEYS, "seed"], sort=False)["run"].unique()
    return [
        f"not counted: {run}, as {runs[-1]} is later and has the same protocol, fusion, objective and seed"
        for runs in names
        for run in runs[:-1]
    ]


def format_table(table: pd.DataFrame, style: Format) -> str:
    """Return a table as text, Markdown, LaTeX (with the package booktabs) or CSV."""
    if style == "csv":
        text = table.to_csv(index=False)
    elif style == "latex":
        text = table.to_latex(index=False, float_format="%.4f", na_rep="", escape=True)
    elif style == "markdown":
        cells = table.astype(object).where(table.notna(), None)
        text = cells.to_markdown(index=False, floatfmt=".4f", missingval="")
    else:
        text = table.to_string(index=False, float_format="{:.4f}".format, na_rep="")
    return str(text).rstrip("\n")


def print_table(config: Table) -> None:
    """Print the means over seeds; on standard error, the runs that are not counted."""
    rows = select_rows(config)
    print(format_table(over_seeds(rows), config.format))
    for line in superseded_runs(rows):
        print(line, file=sys.stderr)


def _read_results(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path} is missing; run_gpu.py writes it, --results_dir says where")
    return read_rows(path)


def _without_evaluations(rows: pd.DataFrame) -> pd.DataFrame:
    keys = [*RUN_KEYS, "epoch", "split"]
    evaluated_run = rows["checkpoint"].map(lambda path: Path(path).parent.name)
    trained = pd.MultiIndex.from_frame(rows[["run", *keys]].astype(str))
    evaluated = pd.MultiIndex.from_frame(rows[keys].astype(str).assign(run=evaluated_run)[["run", *keys]])
    return rows[~evaluated.isin(trained)]


def _baseline_order(name: str) -> int:
    return BASELINES.index(name) if name in BASELINES else len(BASELINES)


Command = Summary | Table | Compare


def main(command: Command) -> None:
    """Print a table of results."""
    if isinstance(command, Summary):
        print(summary(command.results_dir))
    elif isinstance(command, Table):
        print_table(command)
    else:
        print_comparison(command)


if __name__ == "__main__":
    run_cli(main, Command)
