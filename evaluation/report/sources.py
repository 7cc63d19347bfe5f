"""What the page is made of: rows of results, small files of the runs' folders, and counts of the stores."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from evaluation.plots import robustness
from evaluation.results import HASH_DIGITS, read_results, read_table
from evaluation.seeds import RUN
from evaluation.summaries import Summary, summary_path
from utils.files import sha256
from utils.yaml_files import load_yaml, read_yaml_mapping

NEEDED = {"run", "task", "split", "label", "metric", "value"}  # columns of a table of results
RESAMPLES = 1000  # of a run without a summary
PACKAGES = "\npackages:\n"  # last entry of environment.yaml


class RunKey(NamedTuple):
    """What tells a run from all others: RUN."""

    source: str
    run: str
    started: str


@dataclass(frozen=True)
class Record:
    """What the folder of a run says of it."""

    folder: Path
    environment: Mapping[str, object]
    packages: str  # lines "name: version"

    @property
    def config(self) -> Mapping[str, object]:
        """The settings of the run."""
        path = self.folder / "config.yaml"
        return read_yaml_mapping(path) if path.is_file() else {}

    def log(self) -> list[dict[str, str]]:
        """Return the rows of log.csv, [] if there are none."""
        path = self.folder / "log.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.DictReader(file))


@dataclass(frozen=True)
class Step:
    """A rule of the cohort, and what it leaves and removes: counts by name, such as stays."""

    rule: str
    left: Mapping[str, int]
    removed: int  # stays


@dataclass(frozen=True)
class StoreCard:
    """What a store says of itself and of the samples of a task."""

    folder: Path
    manifest: Mapping[str, object]
    samples: Mapping[str, Mapping[str, int]]  # by split: samples, with_xray
    steps: Sequence[Step] = ()  # of the cohort
    task_steps: Sequence[Step] = ()


@dataclass
class Sources:
    """All that was read, and what could not be."""

    rows: pd.DataFrame
    save_dirs: Sequence[Path]
    stores: Sequence[Path]
    notes: list[str] = field(default_factory=list)
    _records: dict[RunKey, Record | None] = field(default_factory=dict)
    _cards: dict[tuple[str, str], StoreCard | None] = field(default_factory=dict)

    def record(self, key: RunKey) -> Record | None:
        """Return what the folder of a run says; None if there is no such folder of this run."""
        if key not in self._records:
            is_name = key.run == Path(key.run).name  # and no path to a file elsewhere
            folders = [folder / key.run for folder in self.save_dirs] if is_name else []
            found = (read_record(folder, self.notes) for folder in folders)
            matching = (
                r for r in found if r is not None and str(r.environment.get("started")) == key.started
            )
            self._records[key] = next(matching, None)
        return self._records[key]

    def summary(self, key: RunKey, split: str) -> Summary | None:
        """Return what the predictions of a run come to; None if neither they nor their summary are there."""
        record = self.record(key)
        if record is None:
            return None
        predictions = record.folder / f"predictions_{split}.csv"
        path = summary_path(predictions)
        try:
            if path.is_file():
                return Summary.read(path)
            return Summary.of_predictions(predictions, RESAMPLES) if predictions.is_file() else None
        except ValueError as error:
            self.notes.append(str(error))
            return None

    def card(self, task: str, store: str, runs: Sequence[RunKey]) -> StoreCard | None:
        """Return what the store with a hash says; it is looked for in --store and where the runs found it."""
        if (task, store) not in self._cards:
            folders = dict.fromkeys([*self.stores, *self._stores_of(runs)])
            cards = (read_card(folder, task, store, self.notes) for folder in folders)
            self._cards[task, store] = next((card for card in cards if card is not None), None)
        return self._cards[task, store]

    def _stores_of(self, runs: Sequence[RunKey]) -> Iterator[Path]:
        for key in runs:
            record = self.record(key)
            try:
                data = record.config.get("data") if record else None
            except ValueError as error:
                self.notes.append(str(error))
                continue
            if isinstance(data, dict) and data.get("store"):
                yield Path(str(data["store"]))
                return


def read_sources(results_dirs: Sequence[Path], save_dirs: Sequence[Path], stores: Sequence[Path]) -> Sources:
    """Read the tables of results of some folders.

    Raises:
        ValueError: There is no row, or a cell is no number.
    """
    notes, tables = [], []
    for path in (path for folder in results_dirs for path in sorted(folder.glob("*.csv"))):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            header = next(csv.reader(file), [])
        if not set(header) >= NEEDED:
            notes.append(f"{path} is no table of results of run_gpu.py")
            continue
        try:
            tables.append(read_results(path))
        except (pd.errors.ParserError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged ({str(error).strip()}); mend or move it away") from None
    if not any(len(table) for table in tables):
        folders = ", ".join(map(str, results_dirs))
        raise ValueError(f"{folders}: no results; run_gpu.py writes them, --results_dir says where")
    return Sources(pd.concat(tables, ignore_index=True), save_dirs, stores, notes)


def read_record(folder: Path, notes: list[str]) -> Record | None:
    """Read the folder of a run; None without an environment.yaml, or, with a note, if it is damaged."""
    path = folder / "environment.yaml"
    try:
        if not path.is_file():
            return None
        text, _, packages = path.read_text(encoding="utf-8", errors="replace").partition(PACKAGES)
        environment = load_yaml(text, str(path))
    except (OSError, ValueError) as error:
        notes.append(str(error))
        return None
    return Record(folder, environment if isinstance(environment, dict) else {}, packages)


def read_card(folder: Path, task: str, store: str, notes: list[str]) -> StoreCard | None:
    """Read the counts of a store, if its samples of a task are those with a hash."""
    path = folder / task / "manifest.yaml"
    if not path.is_file() or sha256(path)[:HASH_DIGITS] != store:
        return None
    try:
        of_task, manifest = read_yaml_mapping(path), read_yaml_mapping(folder / "manifest.yaml")
        samples = of_task.get("samples")
        steps = list(read_steps(folder / "attrition.csv", ("stays", "admissions", "subjects")))
        task_steps = list(read_steps(folder / task / "attrition.csv", ("train", "val", "test", "stays")))
    except (OSError, ValueError) as error:
        notes.append(str(error))
        return None
    return StoreCard(folder, manifest, samples if isinstance(samples, dict) else {}, steps, task_steps)


def read_steps(path: Path, counts: Sequence[str]) -> Iterator[Step]:
    """Yield the rules of an attrition table; none if there is no such table."""
    if not path.is_file():
        return
    table = read_table(path, ("rule", "stays", "removed_stays"), ("rule",))
    for row in table.to_dict("records"):
        left = {name: int(row[name]) for name in counts if name in row}
        yield Step(str(row["rule"]), left, int(row["removed_stays"]))


def read_robustness(results_dirs: Sequence[Path], notes: list[str]) -> dict[str, pd.DataFrame]:
    """Return the tables of training.robustness by task."""
    tables: dict[str, pd.DataFrame] = {}
    for path in (path for folder in results_dirs for path in sorted((folder / "robustness").glob("*.csv"))):
        try:
            tables.setdefault(path.stem, read_table(path, robustness.COLUMNS, robustness.TEXT))
        except ValueError as error:
            notes.append(str(error))
    return tables


def keys_of(rows: pd.DataFrame) -> list[RunKey]:
    """Return the runs of some rows, each once, in order of appearance."""
    return [RunKey(*map(str, key)) for key in rows[RUN].drop_duplicates().itertuples(index=False)]
