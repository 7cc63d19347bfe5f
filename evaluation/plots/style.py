"""The one style of all figures: fonts, lines, legends beside the data, and the formats of the files."""

import re
import textwrap
from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.plots.palette import look
from utils.files import atomic_write

SMALL_TEXT = 8
LEGEND_LINE = 0.17  # height of a line of a legend, in inches
CHARACTERS_PER_INCH = 12
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # no SVG may hold them
# A file must not hold the time of its writing, so that equal figures are equal files.
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}
}  # fmt: skip

rcParams.update(
    {
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(
            color=[look(k).color for k in range(35)],
            linestyle=[(0, dashes) if (dashes := look(k).dashes) else "-" for k in range(35)],
        ),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.titlesize": 10,
        "font.size": 9,
        "grid.color": "0.9",
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.5,
        "legend.fontsize": SMALL_TEXT,
        "legend.frameon": False,
        "legend.handlelength": 3,
        "pdf.fonttype": 42,  # TrueType, which publishers ask for
        "svg.hashsalt": "medmod",
        "text.parse_math": False,  # the name of a run or a label is text, whatever characters it has
    }
)


def plain(text: str) -> str:
    r"""Return a name of a user as matplotlib draws it: without control characters, and never hidden.

    >>> plain("a\x00b"), plain("_mine")
    ('a�b', ' _mine')
    """
    text = CONTROL.sub("\ufffd", text)
    return (
        f" {text}" if text.startswith("_") else text
    )  # matplotlib leaves names that start so out of legends


def wrap(text: str, width: int) -> str:
    """Return a text in lines of at most `width` characters; a word that is longer is broken.

    >>> wrap("Hypertension with complications", 14).splitlines()
    ['Hypertension', 'with', 'complications']
    """
    lines = [textwrap.fill(line, width, break_on_hyphens=True) for line in plain(text).splitlines()]
    return "\n".join(lines)


def legend_below(of: Axes | Figure, columns: int = 1, **options: Any) -> None:
    """Put the legend of a panel, or of a figure, below it, where it covers no data."""
    if isinstance(of, Figure):
        handles = {line.get_label(): line for axis in of.axes for line in axis.get_legend_handles_labels()[0]}
        if handles:
            of.legend(handles=list(handles.values()), loc="outside lower center", ncols=columns, **options)
    elif of.get_legend_handles_labels()[0]:
        of.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, **options)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its suffix, atomically."""
    kind = Path(path).suffix.removeprefix(".")
    with atomic_write(Path(path)) as partial:
        figure.savefig(partial, format=kind, dpi=200, metadata=METADATA[kind])
