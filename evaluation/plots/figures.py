"""What the figures share: the tables they read, titles, panels, line styles and the PNG file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
import yaml
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.predictions import read_predictions
from utils.files import atomic_write

PANEL_SIZE = (4.8, 3.6)  # inches, width and height
SMALL_TEXT = 8
MAX_NAMED_LINES = 8  # where there are more labels, the legend names their mean alone


def line_style(one_of_many: bool) -> dict[str, Any]:
    """Return the style of a line: thin if it is one of many."""
    return {"linewidth": 0.8, "alpha": 0.6} if one_of_many else {"linewidth": 1.8}


def make_panels(
    count: int, title: str, width: float = 0.0, height: float = 0.0, per_row: int = 3
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` axes; width and height in inches, 0: by the axes."""
    columns, rows = min(count, per_row), math.ceil(count / per_row)
    size = (width or PANEL_SIZE[0] * columns, height or PANEL_SIZE[1] * rows + 0.4)
    figure = Figure(size, layout="constrained")
    figure.suptitle(title)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def text_inches(names: Sequence[str]) -> float:
    """Return the length in inches of the longest of some names in small text."""
    return 0.07 * max(map(len, names))


def distinct_colors(count: int) -> np.ndarray:
    """Return [count, 4] different colours: the usual ten, or a rainbow for more.

    >>> [len({tuple(color) for color in distinct_colors(count)}) for count in (3, 10, 30)]
    [3, 10, 30]
    """
    if count <= 10:
        return np.asarray(colormaps["tab10"](np.arange(count)))
    return np.asarray(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_write(Path(path)) as partial:
        figure.savefig(partial, format="png", dpi=150, metadata={"Software": None})


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
        """Return the predictions whose truth is known."""
        path = self.source / f"predictions_{self.split}.csv"
        table = select(read_predictions(path), "label", self.label, path).dropna(subset=["truth"])
        if table.empty:
            raise ValueError(f"{path}: every label is unknown; choose another --split")
        return table

    def title(self) -> str:
        """Return the title of the figure."""
        return make_title(self.source, f", {self.split}")


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
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    return str(record.get("data") or "") if isinstance(record, dict) else ""
