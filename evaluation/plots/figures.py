"""What the figures share: panels, line styles, colours and the PNG file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.files import atomic_write

PANEL_SIZE = (4.8, 3.6)  # inches, width and height
SMALL_TEXT = 8
MAX_NAMED_LINES = 8  # where there are more labels, the legend names their mean alone


def line_style(one_of_many: bool) -> dict[str, Any]:
    """Return the style of a line: thin if it is one of many."""
    return {"linewidth": 0.8, "alpha": 0.6} if one_of_many else {"linewidth": 1.8}


def make_panels(count: int, title: str, width: float = 0.0, height: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` axes, three per row; width and height in inches, 0: by the axes."""
    columns, rows = min(count, 3), math.ceil(count / 3)
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
