"""Result tables: one line per number, added whole under a lock, and the predictions behind them.

`python -m evaluation.results table --task phenotyping` sums up the runs of a task;
`python -m evaluation.results compare RUN_A RUN_B` tells whether two runs differ.
"""

from __future__ import annotations

import csv
import fcntl
import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from evaluation import compare
from utils.cli import run_cli
from utils.files import atomic_write

COLUMNS = (
    "run", "task", "protocol", "fusion", "objective", "checkpoint", "epoch", "split", "seed", "label",
    "metric", "value", "low", "high", "n", "positives", "commit", "started", "seconds",
)  # fmt: skip
RUN_KEYS = ["protocol", "fusion", "objective"]  # runs that differ in seed alone share these
# Student's t, 97.5 %, of 1, 2, ... degrees of freedom; 1.96 beyond.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
PREDICTIONS = ("stay_id", "end_hours", "label", "truth", "probability")
EMBEDDINGS = "embeddings_test.npz"
MAX_EMBEDDINGS = 3000  # samples whose embeddings are kept: as many as a map can show


def append(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Adds rows to a results file, all or none; many processes may append to the same file at once.

    A row has keys of COLUMNS; those left out, None and NaN are written empty. The header is written once. A
    row that is there already, but for its commit and seconds, is not added again: a run that was killed while
    it reported can report again. ValueError for another key, or for a file with other columns; OSError, with
    nothing changed, if the disk is full.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     append(Path(folder) / "a.csv", [{"run": "x", "metric": "auroc", "value": 0.5}])
    ...     append(Path(folder) / "a.csv", [{"run": "y", "metric": "auroc", "value": float("nan")}])
    ...     append(Path(folder) / "a.csv", [{"run": "x", "metric": "auroc", "value": 0.5, "seconds": 9}])
    ...     pd.read_csv(Path(folder) / "a.csv")[["run", "metric", "value"]].values.tolist()
    [['x', 'auroc', 0.5], ['y', 'auroc', nan]]
    """
    append_rows(path, COLUMNS, rows, "choose another --results_dir", ignore_columns=("commit", "seconds"))


def append_rows(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, object]],
    cure: str,
    ignore_columns: Sequence[str] = (),
) -> None:
    """`append` for a file with other columns; `cure` is what to do if the file has others than these.

    `apart`: columns in which a row may differ from one that is there and still be the same. The file is
    written anew beside its place and renamed, so that no reader, and no kill, finds some of the rows.
    """
    path, lines = Path(path).resolve(), _lines(columns, rows)  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = _held(path, columns, cure)
        known = {_identity(row, columns, ignore_columns) for row in csv.reader(io.StringIO(held))}
        fresh = [
            line
            for line in lines
            if _identity(next(csv.reader([line])), columns, ignore_columns) not in known
        ]
        if fresh:
            with atomic_write(path) as partial:
                partial.write_bytes((held + "".join(fresh)).encode())


def read_rows(path: Path) -> pd.DataFrame:
    """The whole lines of a file that `append_rows` writes; a last one without its end is not read."""
    whole_lines = Path(path).read_bytes().rpartition(b"\n")[0]
    return pd.read_csv(io.BytesIO(whole_lines)) if whole_lines else pd.DataFrame()


def write_predictions(
    path: Path,
    stay_id: np.ndarray,
    end_hours: np.ndarray,
    labels: Sequence[str],
    truth: np.ndarray,
    probability: np.ndarray,
) -> None:
    """Writes stay_id, end_hours, label, truth, probability, one line per sample and label, atomically.

    `stay_id`, `end_hours` [n]; `truth` [n, L] with NaN where unknown (written empty); `probability` [n, L].
    An ordinal label has truth [n, 1], a bin, and probability [n, K]: it gives K lines, label "name[k]", truth
    1 at its bin. ValueError if the shapes do not fit.
    """
    if truth.shape[1] == 1 and probability.shape[1] > 1:
        labels = [f"{labels[0]}[{k}]" for k in range(probability.shape[1])]
        known = np.where(np.isnan(truth), np.nan, truth == np.arange(probability.shape[1]))
        truth = known.astype(np.float32)
    shape = (len(stay_id), len(labels))
    if not truth.shape == probability.shape == shape or len(end_hours) != len(stay_id):
        raise ValueError(f"{path}: truth {truth.shape}, probability {probability.shape} must both be {shape}")
    names = pd.Categorical.from_codes(np.tile(np.arange(len(labels)), len(stay_id)), list(labels))
    columns = (np.repeat(stay_id, len(labels)), np.repeat(end_hours, len(labels)), names)
    values = (pd.array(truth.ravel()).astype("Int8"), probability.ravel())
    with atomic_write(Path(path)) as partial:
        table = pd.DataFrame(dict(zip(PREDICTIONS, (*columns, *values), strict=True)))
        table.to_csv(partial, index=False)


def write_embeddings(
    path: Path, embeddings: np.ndarray, names: Sequence[str], labels: np.ndarray, seed: int
) -> None:
    """Writes embeddings [n, D] and labels [n, L] of the given names, of MAPPED samples at most, drawn by
    `seed`: what `python -m evaluation.plots map` shows.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[:MAX_EMBEDDINGS])
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, embeddings=embeddings[chosen], labels=labels[chosen], names=np.array(names, str))


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> list[str]:
    lines = []
    for row in rows:
        unknown = [key for key in row if key not in columns]
        if unknown:
            raise ValueError(f"results have no column {', '.join(unknown)}; they have {', '.join(columns)}")
        lines.append(_line(["" if _empty(row.get(name)) else row[name] for name in columns]))
    return lines


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _held(path: Path, columns: Sequence[str], cure: str) -> str:
    """The whole lines of a file, the header first, also where there is none yet; checks it."""
    data = path.read_bytes() if path.is_file() else b""
    held = data[: data.rfind(b"\n") + 1].decode() or _line(columns)
    if next(csv.reader(io.StringIO(held))) != list(columns):
        raise ValueError(f"{path}: its columns are not {', '.join(columns)}; {cure}")
    return held


def _identity(cells: Sequence[str], columns: Sequence[str], ignore_columns: Sequence[str]) -> tuple[str, ...]:
    """The cells of a row but those that may differ."""
    return tuple(cell for name, cell in zip(columns, cells, strict=False) if name not in ignore_columns)


@dataclass(frozen=True)
class TableConfig:
    """Sum up the runs of a task: mean, standard deviation and intervals over seeds."""

    task: str
    """Task whose results are read."""
    results_dir: tuple[Path, ...] = (Path("results"),)
    """Folder of the result tables, one a task, that run_gpu.py writes; or several, such as one a seed."""
    metric: str = ""
    """Only this score, such as auroc; empty: all."""
    label: str = "macro"
    """Only this label; macro is the mean over labels, and macro[sex=F] that of a subgroup."""
    split: str = "test"
    """Only this split."""
    format: Literal["text", "markdown", "latex", "csv"] = "text"
    """How the table is written."""


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Result rows of one label and split -> a row for each protocol, fusion, objective and metric.

    seeds: runs that differ in their seed, of equal ones the last; mean and sd of their values; seeds_low and
    seeds_high: 95 % interval of the mean over seeds (Student's t), NaN for one seed; low and high: means of
    the ends of the runs' own intervals, which are over subjects.
    """
    rows = rows.sort_values("started", kind="stable").drop_duplicates(
        [*RUN_KEYS, "metric", "seed"], keep="last"
    )
    groups = rows.groupby([*RUN_KEYS, "metric"], sort=False, dropna=False)
    found = groups.agg(
        seeds=("value", "count"),
        mean=("value", "mean"),
        sd=("value", "std"),
        low=("low", "mean"),
        high=("high", "mean"),
    ).reset_index()
    times = found["seeds"].map(lambda n: STUDENT[n - 2] if 2 <= n <= len(STUDENT) + 1 else 1.96)
    half = times * found["sd"] / np.sqrt(found["seeds"])
    found.insert(7, "seeds_low", found["mean"] - half)
    found.insert(8, "seeds_high", found["mean"] + half)
    return found


def seed_table(config: TableConfig) -> str:
    """The table that TableConfig asks for. ValueError if no row is left."""
    return FORMATS[config.format](over_seeds(chosen_rows(config)))


def chosen_rows(config: TableConfig) -> pd.DataFrame:
    """The result rows that TableConfig asks for. ValueError if none is left."""
    paths = [folder / f"{config.task}.csv" for folder in config.results_dir]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path} is missing; run_gpu.py writes it, --results_dir says where")
    rows = pd.concat([_trained(read_rows(path)) for path in paths], ignore_index=True)
    wanted = {"split": config.split, "label": config.label, "metric": config.metric}
    for name, value in wanted.items():
        held = ", ".join(map(str, rows[name].unique()))
        rows = rows[rows[name] == value] if value else rows
        if rows.empty:
            where = ", ".join(map(str, paths))
            raise ValueError(f"{where}: there is no row of --{name} {value}, but of {held}")
    return rows


def hidden_runs(rows: pd.DataFrame) -> list[str]:
    """A line for each run that a table leaves out, as a later one under another name has the same seed."""
    names = (
        rows.sort_values("started", kind="stable").groupby([*RUN_KEYS, "seed"], sort=False)["run"].unique()
    )
    return [
        f"left out: {run}, as {runs[-1]} is later and has the same protocol, fusion, objective and seed"
        for runs in names
        for run in runs[:-1]
    ]


def _trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without those that --mode eval added of a run that is in the table, under the seed of the eval."""
    same = [*RUN_KEYS, "epoch", "split"]
    source = rows["checkpoint"].fillna("").map(lambda path: Path(str(path)).parent.name)
    runs = pd.MultiIndex.from_frame(rows[["run", *same]].astype(str))
    return rows[
        ~pd.MultiIndex.from_frame(rows[same].astype(str).assign(run=source)[["run", *same]]).isin(runs)
    ]


def _cells(table: pd.DataFrame) -> list[list[str]]:
    body = [
        ["" if _empty(value) else f"{value:.4f}" if isinstance(value, float) else str(value) for value in row]
        for row in table.itertuples(index=False)
    ]
    return [list(table.columns), *body]


def _text(table: pd.DataFrame) -> str:
    text: str = table.to_string(index=False, float_format="{:.4f}".format, na_rep="")
    return text


def _markdown(table: pd.DataFrame) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in _cells(table))
    return "\n".join([head, "|" + " --- |" * len(table.columns), *body])


def _latex(table: pd.DataFrame) -> str:
    """A tabular with rules of the package booktabs."""
    head, *body = (
        " & ".join(cell.replace("_", r"\_").replace("%", r"\%") for cell in row) + r" \\"
        for row in _cells(table)
    )
    begin = rf"\begin{{tabular}}{{{'l' * 4}{'r' * (len(table.columns) - 4)}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _csv(table: pd.DataFrame) -> str:
    text: str = table.to_csv(index=False).rstrip("\n")
    return text


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "text": _text,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
}


def print_table(config: TableConfig) -> None:
    """Print the table, and which runs it leaves out on the error stream."""
    print(seed_table(config))
    for line in hidden_runs(chosen_rows(config)):
        print(line, file=sys.stderr)


COMMANDS: dict[str, Callable[[], None]] = {
    "table": lambda: run_cli(print_table, TableConfig),
    "compare": lambda: run_cli(compare.main, compare.CompareConfig),
}


def main() -> None:
    """Run the command that the first word names; exit with status 2 if it names none."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(f"error: say one of {', '.join(COMMANDS)}, and --help for its flags", file=sys.stderr)
        raise SystemExit(2)
    del sys.argv[1]
    COMMANDS[name]()


if __name__ == "__main__":
    main()
