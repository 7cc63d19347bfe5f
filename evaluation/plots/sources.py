"""Read what the figures show, and what a run says about its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
import yaml

from evaluation.predictions import read_predictions
from evaluation.results import read_rows


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file of ours.

    Raises:
        ValueError: the file is missing, not a table, empty, or without one of `columns`.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; give the folder or table of a run that has finished")
    try:
        table = read_rows(path)
    except (ValueError, UnicodeDecodeError):
        raise ValueError(f"{path} is not a table; give a CSV file that a run has written") from None
    if table.empty:
        raise ValueError(f"{path} has no rows yet; wait for the first")
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; give the table that the figure needs")
    return table


@dataclass(frozen=True)
class PredictionSelection:
    """Which predictions a figure shows."""

    source: tyro.conf.Positional[Path]
    """Folder of the run, with its predictions_<split>.csv."""
    split: str = "test"
    """Split to show."""
    label: tuple[str, ...] = ()
    """Labels to show; all if none is given."""

    def read(self) -> pd.DataFrame:
        """Return the predictions whose truth is known.

        Raises:
            ValueError: there is none.
        """
        path = self.source / f"predictions_{self.split}.csv"
        table = select(read_predictions(path), "label", self.label, path).dropna(subset=["truth"])
        if table.empty:
            raise ValueError(f"{path}: every label is unknown; choose another --split")
        return table

    def title(self) -> str:
        """Return the title of the figure."""
        return make_title(self.source, f", {self.split}")


def select(table: pd.DataFrame, column: str, values: Sequence[str], path: Path) -> pd.DataFrame:
    """Return the rows with one of `values` in a column of text, all rows if there are no values.

    Raises:
        ValueError: a value is in no row of the table of `path`.
    """
    available = unique(table[column])
    unknown = [value for value in values if value not in available]
    if unknown:
        choices = ", ".join(map(str, available))
        raise ValueError(f"{path} has no {column} {', '.join(unknown)}; choose --{column} from {choices}")
    return table[table[column].isin(values)] if values else table


def unique(names: pd.Series) -> list[str]:
    """Return the different values in the order in which they appear."""
    return list(dict.fromkeys(names))


def make_title(source: Path, suffix: str = "") -> str:
    """Return the name of a run, or of a file in its folder, a suffix, and what the run says of its data."""
    folder = source if source.is_dir() else source.parent
    name = source.resolve().name if source.is_dir() else source.stem
    return f"{name}{suffix}\n{data_description(folder / 'environment.yaml')}".strip()


def data_description(path: Path) -> str:
    """Return what a YAML record says of its data, such as "synthetic data"; "" if it says nothing."""
    if not path.is_file():
        return ""
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    return str(record.get("data") or "") if isinstance(record, dict) else ""
