"""What the figures share: the tables they read, titles, panels and line styles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.names import label_title
from evaluation.plots.palette import GREY, Format
from evaluation.plots.style import CHARACTERS_PER_INCH, LEGEND_LINE, wrap
from evaluation.predictions import read_predictions
from utils.yaml_files import load_yaml, read_yaml_mapping

PANEL_SIZE = (4.2, 3.4)  # inches, width and height
MAX_NAMED_LINES = 8  # where there are more labels, the legend names their mean alone


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn by a command, and the file it is written to."""

    format: Format = field(default="png", kw_only=True)
    """Format of the file; pdf and svg are sharp at any size, as publishers ask for."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to, as PNG."""
        raise NotImplementedError


def line_style(count: int) -> dict[str, Any]:
    """Return the style of one of several lines: thin, and grey where there are too many to be named."""
    if count > MAX_NAMED_LINES:
        return {"linewidth": 0.7, "alpha": 0.6, "color": GREY, "linestyle": "-"}
    return {"linewidth": 1.8 if count == 1 else 1.1}


def make_panels(
    count: int,
    title: str,
    width: float = 0.0,
    height: float = 0.0,
    per_row: int = 3,
    legend_lines: int = 0,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` axes; width and height in inches, 0: by the axes and the legend."""
    columns, rows = min(count, per_row), math.ceil(count / per_row)
    width = width or PANEL_SIZE[0] * columns
    lines = wrap(title, int(width * CHARACTERS_PER_INCH))
    needed = PANEL_SIZE[1] * rows + LEGEND_LINE * (len(lines.splitlines()) + legend_lines) + 0.1
    figure = Figure((width, height or needed), layout="constrained")
    figure.suptitle(lines)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def text_inches(names: Sequence[str]) -> float:
    """Return the length in inches of the longest line of some names in small text."""
    return 0.07 * max(len(line) for name in names for line in name.splitlines() or [""])


@dataclass(frozen=True)
class PredictionSelection(Picture):
    """Which predictions a figure shows."""

    source: tyro.conf.Positional[Path]
    """Folder of the run, with its predictions_<split>.csv."""
    split: str = "test"
    """Split to show."""
    label: tuple[str, ...] = ()
    """Labels to show; all if none is given."""

    def read(self) -> pd.DataFrame:
        """Return the predictions whose truth is known."""
        path = self.source / f"predictions_{self.split}.csv"
        table = select(read_predictions(path), "label", self.label, path).dropna(subset=["truth"])
        if table.empty:
            raise ValueError(f"{path}: every label is unknown; choose another --split")
        return table

    def titles(self, predictions: pd.DataFrame) -> dict[str, str]:
        """Return the labels of some predictions as readers know them, by label."""
        return label_titles(self.source, list(predictions["label"].unique()))

    def title(self) -> str:
        """Return the title of the figure."""
        return make_title(self.source, f", {self.split}")


def label_titles(run: Path, labels: Sequence[str]) -> dict[str, str]:
    """Return the labels of a run's task as readers know them, by label."""
    path = run / "config.yaml"
    task = str(read_yaml_mapping(path).get("task", "")) if path.is_file() else ""
    return {label: label_title(label, task) for label in labels}


def select(table: pd.DataFrame, column: str, values: Sequence[str], path: Path) -> pd.DataFrame:
    """Return the rows with one of `values` in a column of text, all rows if there are no values."""
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
    record = load_yaml(path.read_bytes(), str(path))
    return str(record.get("data") or "") if isinstance(record, dict) else ""
