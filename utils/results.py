"""Result tables: one line per number, appended whole under a lock, and the predictions behind them.

`python -m utils.results table --task phenotyping` sums up the runs of a task;
`python -m utils.results compare RUN_A RUN_B` tells whether two runs differ.
"""

from __future__ import annotations

import csv
import fcntl
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from utils import compare
from utils.files import NO_SPACE, whole
from utils.script import run_script

COLUMNS = (
    "run", "task", "protocol", "fusion", "objective", "checkpoint", "epoch", "split", "seed", "label",
    "metric", "value", "low", "high", "n", "positives", "commit", "started", "seconds",
)  # fmt: skip
ABOUT = ["protocol", "fusion", "objective"]  # runs that differ in seed alone share these
# Student's t, 97.5 %, of 1, 2, ... degrees of freedom; 1.96 beyond.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
PREDICTIONS = ("stay_id", "end_hours", "label", "truth", "probability")


def append(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Adds rows to a results file, all or none; many processes may append to the same file at once.

    A row has keys of COLUMNS; those left out, None and NaN are written empty. The header is written once.
    ValueError for another key, or for a file with other columns; OSError, with nothing changed, if the disk
    is full.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     append(Path(folder) / "a.csv", [{"run": "x", "metric": "auroc", "value": 0.5}])
    ...     append(Path(folder) / "a.csv", [{"run": "y", "metric": "auroc", "value": float("nan")}])
    ...     pd.read_csv(Path(folder) / "a.csv")[["run", "metric", "value"]].values.tolist()
    [['x', 'auroc', 0.5], ['y', 'auroc', nan]]
    """
    append_rows(path, COLUMNS, rows, "choose another --results_dir")


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]], cure: str) -> None:
    """`append` for a file with other columns; `cure` is what to do if the file has others than these."""
    path, lines = Path(path), _lines(columns, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        length = _cut_torn_line(file, path, columns, cure)
        text = lines if length else _line(columns) + lines
        try:
            _write_all(file, text.encode())
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(length)
            if error.errno not in NO_SPACE:
                raise
            cure = "nothing was changed in it; free space there and run the same command again"
            raise OSError(error.errno, f"no space left to write {path} ({error.strerror}); {cure}") from error


def read_rows(path: Path) -> pd.DataFrame:
    """The whole lines of a file that `append_rows` writes; one that a killed writer left torn is not read."""
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
    with whole(Path(path)) as partial:
        table = pd.DataFrame(dict(zip(PREDICTIONS, (*columns, *values), strict=True)))
        table.to_csv(partial, index=False)


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    lines = []
    for row in rows:
        unknown = [key for key in row if key not in columns]
        if unknown:
            raise ValueError(f"results have no column {', '.join(unknown)}; they have {', '.join(columns)}")
        lines.append(_line(["" if _empty(row.get(name)) else row[name] for name in columns]))
    return "".join(lines)


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _cut_torn_line(file: io.FileIO, path: Path, columns: Sequence[str], cure: str) -> int:
    """Length in bytes of the whole lines; what a killed writer left behind them is cut off. Checks the
    header."""
    file.seek(0)
    header = file.readline().decode()
    if header.endswith("\n") and next(csv.reader([header])) != list(columns):
        raise ValueError(f"{path}: its columns are not {', '.join(columns)}; {cure}")
    end = file.seek(0, os.SEEK_END)
    length, block = end, 4096
    while length:
        start = max(0, length - block)
        file.seek(start)
        newline = file.read(length - start).rfind(b"\n")
        length = start + newline + 1
        if newline >= 0:
            break
    if length < end:
        file.truncate(length)
    return length


def _write_all(file: io.FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


@dataclass(frozen=True)
class TableConfig:
    """Sum up the runs of a task: mean, standard deviation and intervals over seeds."""

    task: str
    """Task whose results are read."""
    results_dir: Path = Path("results")
    """Folder of the result tables, one a task, that run_gpu.py writes."""
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
    rows = rows.sort_values("started", kind="stable").drop_duplicates([*ABOUT, "metric", "seed"], keep="last")
    groups = rows.groupby([*ABOUT, "metric"], sort=False, dropna=False)
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
    path = config.results_dir / f"{config.task}.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing; run_gpu.py writes it, --results_dir says where")
    rows = _trained(read_rows(path))
    wanted = {"split": config.split, "label": config.label, "metric": config.metric}
    for name, value in wanted.items():
        held = ", ".join(map(str, rows[name].unique()))
        rows = rows[rows[name] == value] if value else rows
        if rows.empty:
            raise ValueError(f"{path} has no row of --{name} {value}; it has {held}")
    return FORMATS[config.format](over_seeds(rows))


def _trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without those that --mode eval added of a run that is in the table, under the seed of the eval."""
    same = [*ABOUT, "epoch", "split"]
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
    """Print the table."""
    print(seed_table(config))


COMMANDS: dict[str, Callable[[], None]] = {
    "table": lambda: run_script(print_table, TableConfig),
    "compare": lambda: run_script(compare.main, compare.CompareConfig),
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
