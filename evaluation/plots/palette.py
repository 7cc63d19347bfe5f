"""Formats, colours, dashes, marks and hatches of pictures: what differs in one look differs in others too."""

from typing import Literal, NamedTuple

Format = Literal["png", "pdf", "svg"]

# Of Okabe and Ito (2008): people with any colour vision tell them apart. Their yellow is too faint on white.
BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK = COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"
)  # fmt: skip
GREY = "#767676"
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.5), (6, 2, 1, 2), (9, 3))  # widths of the line
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")


class Look(NamedTuple):
    """How a line, a set of points or a bar looks."""

    color: str
    dashes: tuple[float, ...]
    marker: str
    hatch: str


def look(number: int) -> Look:
    """Return the look of the line, the points or the bar with a number, from 0; the first 35 differ.

    >>> len({(look(k).color, look(k).dashes) for k in range(35)})
    35
    """
    return Look(
        COLORS[number % len(COLORS)],
        DASHES[number % len(DASHES)],
        MARKERS[number % len(MARKERS)],
        HATCHES[number % len(HATCHES)],
    )
