"""Line charts and bars of intervals as vector graphics: where each mark lies, and what it says in words.

A page has a hundred of them, each of which takes matplotlib a fifth of a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from evaluation.plots.palette import look

WIDTH, HEIGHT = 340, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 10, 42
APART = 4  # pixels between points of lines at the same x, whose intervals would cover each other
BAR_WIDTH = 160
MOST_ROWS = 12  # of the table of numbers below a chart


class Tick(NamedTuple):
    """Where a label of an axis is, and its text."""

    at: float
    text: str


class Mark(NamedTuple):
    """A point of a line, and the ends of its interval (NaN: none), in pixels."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """A line through points, whose y may have intervals."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Drawn:
    """A line as it is drawn."""

    name: str
    path: str
    marks: Sequence[Mark]
    color: str
    dashes: str
    symbol: str


@dataclass(frozen=True)
class Chart:
    """A chart of lines. Points that are not finite are left out."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_ticks: Sequence[Tick] = ()
    logarithmic: bool = False  # the x axis
    diagonal: str = ""  # what the diagonal means; "" for none
    with_marks: bool = True
    level: tuple[float, str] | None = None  # a horizontal line, and what it means
    synthetic: bool = False
    is_clipped: bool = False  # lines may leave the range of the y axis, and end there
    width: float = field(default=WIDTH, init=False)
    height: float = field(default=HEIGHT, init=False)
    box: tuple[float, float, float, float] = field(
        default=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM), init=False
    )

    @cached_property
    def x_span(self) -> tuple[float, float]:
        """The range of the x axis."""
        return self.x_range or span([x for line in self.lines for x in line.x], margin=0.0)

    @cached_property
    def y_span(self) -> tuple[float, float]:
        """The range of the y axis."""
        level = [self.level[0]] if self.level else []
        values = [value for line in self.lines for part in (line.y, line.low, line.high) for value in part]
        return self.y_range or span([*values, *level], margin=0.05)

    def place_x(self, value: float) -> float:
        """Return the pixel of an x value."""
        low, high = self.x_span
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 1)

    def place_y(self, value: float) -> float:
        """Return the pixel of a y value."""
        low, high = self.y_span
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    @property
    def x_axis(self) -> list[Tick]:
        """The labels of the x axis."""
        shown = self.x_ticks or [Tick(value, f"{value:g}") for value in ticks(*self.x_span)]
        return [Tick(self.place_x(tick.at), tick.text) for tick in shown]

    @property
    def y_axis(self) -> list[Tick]:
        """The labels of the y axis."""
        return [Tick(self.place_y(value), f"{value:g}") for value in ticks(*self.y_span)]

    @property
    def drawn(self) -> list[Drawn]:
        """The lines in pixels."""
        return [self._draw(number, line) for number, line in enumerate(self.lines)]

    def _draw(self, number: int, line: Line) -> Drawn:
        color, dashes, symbol, _ = look(number)
        known = [i for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)) if math.isfinite(x + y)]
        aside = APART * (number - (len(self.lines) - 1) / 2) if line.low and self.with_marks else 0.0
        marks = [
            Mark(round(self.place_x(line.x[i]) + aside, 1), self.place_y(line.y[i]), *self._ends(line, i))
            for i in known
        ]
        path = " ".join(f"{'L' if i else 'M'}{mark.x:g} {mark.y:g}" for i, mark in enumerate(marks))
        shown = marks if self.with_marks or len(marks) == 1 else []
        return Drawn(line.name, path, shown, color, " ".join(map(str, dashes)), symbol)

    def _ends(self, line: Line, index: int) -> tuple[float, float]:
        if not line.low or not math.isfinite(line.low[index] + line.high[index]):
            return math.nan, math.nan
        return self.place_y(line.low[index]), self.place_y(line.high[index])

    @property
    def numbers(self) -> list[list[str]]:
        """The lines as a table: a header, and a row for each of some x values."""
        xs = sorted({x for line in self.lines for x in line.x if math.isfinite(x)})
        step = max(1, math.ceil((len(xs) - 1) / (MOST_ROWS - 1)))
        shown = [*xs[:-1:step], *xs[-1:]]
        texts = {tick.at: tick.text for tick in self.x_ticks}
        rows = [[texts.get(x, f"{x:g}"), *(_value_at(line, x) for line in self.lines)] for x in shown]
        return [[self.x_label, *(line.name for line in self.lines)], *rows]

    @property
    def description(self) -> str:
        """What the chart shows, in words."""
        texts = {tick.at: tick.text for tick in self.x_ticks}
        said = []
        for line in self.lines:
            known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x + y)]
            if known:
                (x0, y0), (x1, y1) = known[0], known[-1]
                ends = [f"{y:.3g} at {texts.get(x, f'{x:g}')}" for x, y in ((x0, y0), (x1, y1))]
                said.append(f"{line.name}: {' to '.join(dict.fromkeys(ends))}")
        kind = "SYNTHETIC data. " if self.synthetic else ""
        return f"{kind}Line chart of {self.y_label} against {self.x_label}. {'; '.join(said)}."


@dataclass(frozen=True)
class Bar:
    """A score and its interval on a scale that all rows of a column share; NaN ends: no interval."""

    value: float
    low: float
    high: float
    scale: tuple[float, float]
    reference: float = math.nan  # a dotted line, such as the best score

    def place(self, value: float) -> float:
        """Return the pixel of a value; one outside the scale lies on its end."""
        low, high = self.scale
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(4 + (BAR_WIDTH - 8) * share, 1)

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low + self.high)


def span(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Return a range that holds all finite values, widened on both sides by a share of itself.

    >>> span([1.0, 3.0, math.nan], 0.5), span([2.0], 0.0), span([], 0.0)
    ((0.0, 4.0), (1.5, 2.5), (0.0, 1.0))
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if low == high:
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most so many round numbers from low to high.

    >>> ticks(0.0, 1.0), ticks(0.62, 0.78)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.65, 0.7, 0.75])
    """
    raw = (high - low) / (most - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * number, 10) for number in range(first, last + 1)]


def _value_at(line: Line, x: float) -> str:
    for i, at in enumerate(line.x):
        if at == x and math.isfinite(line.y[i]):
            ends = ""
            if line.low and math.isfinite(line.low[i] + line.high[i]):
                ends = f" ({line.low[i]:.3g} to {line.high[i]:.3g})"
            return f"{line.y[i]:.3g}{ends}"
    return ""
