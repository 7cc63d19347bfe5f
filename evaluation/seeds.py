"""Means of result rows that differ in their seed alone; what is not counted has a line that says why."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from evaluation.names import metric_of
from evaluation.results import ENCODERS, read_results
from tasks import TASKS, TaskName
from utils.choices import require_choice

METHOD = ["protocol", "fusion", "objective"]
# also equal in runs that differ in their seed alone
CONTEXT = ["mode", "data", "store", "data_pairs", "split_by", "label_fraction", *ENCODERS, "settings"]
GROUP = ["group", *METHOD, *CONTEXT]
RUN = ["source", "run", "started"]  # what tells one run from all others
SAME_SCORE = 1e-3  # largest difference between two evaluations of one classifier, such as on CPU and GPU


@dataclass(frozen=True)
class RowSelection:
    """Which result rows a table is made of."""

    task: TaskName
    """Task whose results are read."""
    results_dir: tuple[Path, ...] = (Path("results"),)
    """Folder of the result tables, one per task, that run_gpu.py writes; or several."""
    metric: tuple[str, ...] = ()
    """Only these scores, such as auroc; all if none is given."""
    label: str = "macro"
    """Only this label; macro is the mean over labels, and macro[sex=F] that of a subgroup."""
    split: str = "test"
    """Only this split."""


class Selection(NamedTuple):
    """Result rows, whose column `group` is equal where they may be averaged; and what is not counted."""

    rows: pd.DataFrame
    lines: list[str]


def select_rows(config: RowSelection) -> Selection:
    """Read the rows of a table, and say which are not counted.

    Raises:
        ValueError: There is no such task, or no row of it has the label, split or metric.
    """
    paths = [folder / f"{config.task}.csv" for folder in config.results_dir]
    if not any(path.is_file() for path in paths):
        require_choice(TASKS, config.task, "task")
    rows = pd.concat([read_results(path) for path in paths], ignore_index=True)
    for name, values in (("split", [config.split]), ("label", [config.label]), ("metric", config.metric)):
        available = list(rows[name].unique())
        if unknown := [value for value in values if value not in available]:
            files, choices = ", ".join(map(str, paths)), ", ".join(available)
            raise ValueError(f"{files}: no row has --{name} {', '.join(unknown)}; available: {choices}")
        rows = rows[rows[name].isin(values)] if values else rows
    return select_counted(rows)


def select_counted(rows: pd.DataFrame) -> Selection:
    """Leave out repeated runs, and evaluations that repeat a test; mark which rows may be averaged.

    `rows` are those of one split and label, and of any metrics. Runs are averaged only if all of METHOD and
    CONTEXT is equal. Rows of an older version, which did not record the settings, are never averaged. If a
    seed has several checkpoints, each checkpoint has a mean of its own.
    """
    rows = rows.sort_values("started", kind="stable", ignore_index=True)
    names = rows[RUN].astype(str).agg(" ".join, axis=1)
    rows = rows.assign(group=names.where(rows["settings"] == "", ""), classifiers=checkpoint_names(rows))
    lines: list[str] = []
    for drop in (_repeated_evaluations, _repeated_runs):
        repeats = list(drop(rows))
        lines += _lines_of_repeats(repeats)
        runs = pd.MultiIndex.from_frame(rows.loc[[repeat.row for repeat in repeats], RUN])
        rows = rows[~pd.MultiIndex.from_frame(rows[RUN]).isin(runs)].reset_index(drop=True)
    several = rows.groupby([*GROUP, "seed", "metric"], dropna=False)["value"].transform("size") > 1
    keys = pd.MultiIndex.from_frame(rows[GROUP])
    ambiguous = keys.isin(keys[several])
    rows.loc[ambiguous, "group"] = "checkpoint " + rows.loc[ambiguous, "checkpoint_hash"]
    for _, group in rows[ambiguous].groupby(GROUP[1:], sort=False):
        names = ", ".join(dict.fromkeys(group["run"]))
        lines.append(f"not averaged: {names}, which start from different checkpoints with the same seed")
    for run, metrics in rows[rows["value"].isna()].groupby("run", sort=False)["metric"]:
        lines.append(
            f"not counted: {run} in {', '.join(metrics)}, as it has no value (one class, or a small subgroup)"
        )
    unknown = rows[rows["settings"] == ""]
    if len(unknown):
        names = ", ".join(dict.fromkeys(unknown["run"]))
        lines.append(f"not averaged: {names}, written by a version that did not record the settings")
    return Selection(rows, lines)


def over_seeds(rows: pd.DataFrame, each: Sequence[str] = ("metric",)) -> pd.DataFrame:
    """Average selected rows (see `select_counted`): a row per group and metric, in order of appearance.

    For rows of several labels, `each` has label too.

    `seeds` is the number of runs, `checkpoints` that of the checkpoints they start from (0: none);
    `seeds_low` and `seeds_high` are the 95 % interval of their mean (Student's t), NaN for one run, and also
    where the interval leaves the possible range of the score. `low` and `high` are the means of the ends of
    the runs' intervals over subjects, `n` and `positives` those of the last run, `runs` all names, and
    `classifiers` those of the checkpoints that evaluations tested.
    """
    table = rows.groupby([*GROUP, *each], sort=False, dropna=False).agg(
        seeds=("value", "count"),
        checkpoints=("checkpoint_hash", lambda hashes: hashes[hashes != ""].nunique()),
        mean=("value", "mean"),
        sd=("value", "std"),
        low=("low", "mean"),
        high=("high", "mean"),
        n=("n", "last"),
        positives=("positives", "last"),
        runs=("run", _join),
        classifiers=("classifiers", _join),
    )
    half_width = stats.t.ppf(0.975, table["seeds"] - 1) * table["sd"] / np.sqrt(table["seeds"])
    ends = table["mean"] - half_width, table["mean"] + half_width
    table = table.reset_index()
    ranges = [metric_of(name) for name in table["metric"]]
    possible = (ends[0] >= [r.low for r in ranges]) & (ends[1] <= [r.high for r in ranges])
    for name, end in zip(("seeds_low", "seeds_high"), ends, strict=True):
        table.insert(table.columns.get_loc("low"), name, end.where(possible).to_numpy())
    return table


def _join(names: pd.Series) -> str:
    return ", ".join(dict.fromkeys(names))


class Repeat(NamedTuple):
    """A run that is not counted: a row of it, what a line calls it, and why, for one run and for several."""

    row: int
    name: str
    reason: tuple[str, str]


def _lines_of_repeats(repeats: Sequence[Repeat]) -> list[str]:
    """Return a line for each reason, with the names of its runs."""
    named: dict[tuple[str, str], Counter[str]] = {}
    for repeat in repeats:
        named.setdefault(repeat.reason, Counter())[repeat.name] += 1
    lines = []
    for (one, several), counts in named.items():
        names = [f"{name} ({times} times)" if times > 1 else name for name, times in counts.items()]
        lines.append(f"not counted: {', '.join(names)}, {one if len(names) == 1 else several}")
    return lines


def _repeated_evaluations(rows: pd.DataFrame) -> Iterator[Repeat]:
    """Yield each --mode eval that only repeats the scores of a training run in the rows."""
    for _, evaluation in rows[(rows["mode"] == "eval") & (rows["classifier_hash"] != "")].groupby(
        RUN, sort=False
    ):
        first = evaluation.iloc[0]
        twins = rows[
            (rows["mode"] == "train")
            & (rows["classifier_hash"] == first["classifier_hash"])
            & (rows["store"] == first["store"])
        ]
        for _, twin in twins.groupby(RUN):
            if _same_scores(twin, evaluation):
                test = f"the test of {twin['run'].iloc[0]}"
                reason = f"which repeats {test}", f"which repeat {test}"
                yield Repeat(int(evaluation.index[0]), str(first["run"]), reason)
                break


def _same_scores(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Return whether two runs have the same scores of the same number of samples."""
    both = a.merge(b, on=["split", "label", "metric"], suffixes=("_a", "_b"))
    difference = (both["value_a"] - both["value_b"]).abs().fillna(0)
    return len(both) == len(b) and bool(
        (difference <= SAME_SCORE).all() and (both["n_a"] == both["n_b"]).all()
    )


def _repeated_runs(rows: pd.DataFrame) -> Iterator[Repeat]:
    """Yield each run that a later one repeats: with the same settings, checkpoints and seed."""
    settings = [*GROUP, "checkpoint_hash", "seed"]
    runs = rows.drop_duplicates(RUN)
    repeated = runs[runs.duplicated(settings, keep=False)]
    for _, same in repeated.groupby(settings, sort=False, dropna=False):
        last = f"{same['run'].iloc[-1]} (started {same['started'].iloc[-1]})"
        reason = (
            f"as {last} repeats it with the same settings and seed",
            f"as {last} repeats them with the same settings and seed",
        )
        for index, run in same.iloc[:-1].iterrows():
            yield Repeat(int(str(index)), f"{run['run']} (started {run['started']})", reason)


def checkpoint_names(rows: pd.DataFrame) -> pd.Series:
    """Return folder and file of the classifier that each evaluation in result rows tested, "" for trainings.

    Files that are called the same, but differ, have their hash too.
    """
    short = rows["checkpoint"].map(_short_name).where(rows["mode"] == "eval", "")
    hashes = rows.groupby(short)["classifier_hash"].transform("nunique")
    return short.where((short == "") | (hashes < 2), short + " (" + rows["classifier_hash"] + ")")


def _short_name(checkpoint: str) -> str:
    """Return the folder of a run and the file in it.

    >>> _short_name("/data/runs/mine/last.ckpt")
    'mine/last.ckpt'
    """
    return "/".join(Path(checkpoint).parts[-2:])
