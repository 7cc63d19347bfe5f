"""One stay as it is drawn: its observations, the hours that a model reads, and its X-rays."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from datasets.events.buckets import GLASGOW_POINTS
from datasets.schema import Variable, variables
from datasets.store import Store
from evaluation.plots.palette import BLACK, BLUE, RED
from evaluation.plots.style import SMALL_TEXT

OBSERVED, HOURLY, XRAY, GREY = BLACK, BLUE, RED, "#999999"
WIDTH, LEFT, RIGHT = 11.0, 0.28, 0.97  # inches, and the fractions of it between which the axes lie
XRAYS = 1.5  # height of the X-rays in inches
MOST_XRAYS = 10
TINY_TEXT = 6.5
POINTS = 72 * WIDTH * (RIGHT - LEFT)  # width of the axes, in points
DOT = 2.5  # diameter of an observation in points, if there is room
# Words for categories that are mere numbers (see datasets/events/cleaning.py), from the worst to the best.
CATEGORY_TITLES = {"Capillary refill rate": {"1.0": "delayed", "0.0": "normal"}}


@dataclass(frozen=True, eq=False)
class Stay:
    """A stay with T bins of the grid, k X-rays and its observations."""

    row: pd.Series  # of stays.parquet
    data: str  # whose data these are
    timestep: float
    grid: np.ndarray  # [T, C], in the variables' units
    events: pd.DataFrame  # hours, variable, value
    image_hours: np.ndarray  # [k]
    views: list[str]  # [k], view positions
    images: Sequence[np.ndarray]  # uint8 [height, width] each, k of them

    @property
    def edges(self) -> np.ndarray:
        """Hours at which the bins begin and the last one ends, [T + 1]."""
        return np.arange(len(self.grid) + 1) * self.timestep

    @property
    def end(self) -> float:
        """Hour at which the last bin ends."""
        return float(self.edges[-1])

    @property
    def death(self) -> tuple[float, float] | None:
        """The earliest and the latest hour of death, equal if it is known; None after the stay, or without.

        Of a death of which only the day is known these are a day apart.
        """
        earliest = float(self.row["death_hours"])
        if not earliest <= self.end:  # NaN: no death is known
            return None
        return earliest, earliest + (0 if self.row.get("death_hour_known", True) else 24)


def read_stay(store: Store, stay_id: int) -> Stay:
    """Read a stay of a store.

    Raises:
        ValueError: The store does not hold the stay.
    """
    stays = store.stays()
    found = np.flatnonzero(stays["stay_id"] == stay_id)
    if not len(found):
        raise ValueError(
            f"--stay_id {stay_id}: {store.folder} has no such stay; its stays.parquet and listfiles name them"
        )
    row = int(found[0])
    stay = stays.iloc[row]
    images = store.images()
    image_rows = np.flatnonzero(images["stay_row"] == row)
    return Stay(
        stay,
        store.data_description,
        store.manifest.timestep,
        store.hourly[stay["offset"] : stay["offset"] + stay["length"]],
        store.events(stays["events"].to_numpy(), slice(row, row + 1)),
        images["hours"].to_numpy()[image_rows],
        images["view"].iloc[image_rows].tolist(),
        [store.cxr[image] for image in image_rows],
    )


def select_variables(names: Sequence[str]) -> list[Variable]:
    """Return the variables with some names, all for none."""
    known = {variable.name: variable for variable in variables()}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--variable {unknown[0]}: unknown; choose from {', '.join(known)}")
    return [known[name] for name in names] or list(known.values())


class Rows(NamedTuple):
    """What a variable's row shows: its observations [n], its value in each bin [T], and its levels.

    Values of a variable with categories are indices of `levels`, those in use from the worst to the best;
    others have none. Categories that mean the same, such as two spellings of a score, are one level.
    """

    hours: np.ndarray
    values: np.ndarray
    binned: np.ndarray
    observed_from: int  # first bin with an observation, T if there is none
    levels: tuple[str, ...]


def rows_of(stay: Stay, variable: Variable) -> Rows:
    """Return the observations and the bins of a variable."""
    events = stay.events[stay.events["variable"] == variable.name]
    hours, values = events["hours"].to_numpy(), events["value"].to_numpy()
    channels = stay.grid[:, variable.first_channel : variable.first_channel + variable.width]
    binned = channels.argmax(axis=1) if variable.categories else channels[:, 0]
    masks = np.flatnonzero(stay.grid[:, variable.mask_channel] == 1)
    first = int(masks[0]) if len(masks) else len(stay.grid)
    if not variable.categories:
        return Rows(hours, values, binned, first, ())
    names, level = levels_of(variable, {*values.astype(int).tolist(), *binned.tolist()})
    return Rows(hours, level[values.astype(int)], level[binned], first, names)


def levels_of(variable: Variable, used: Collection[int]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the levels of some categories, from the worst to the best, and those' levels.

    `used` are indices of the variable's categories; the levels [K] of its other categories are 0.
    """
    ranks = {slot: _rank(variable, slot) for slot in sorted(used)}
    order = sorted(set(ranks.values()))
    level = np.zeros(len(variable.categories), int)
    for slot, rank in ranks.items():
        level[slot] = order.index(rank)
    names = [_level_name(variable, [slot for slot in ranks if ranks[slot] == rank]) for rank in order]
    return tuple(names), level


def _rank(variable: Variable, slot: int) -> tuple[float, int]:
    """Return where a category stands; categories with the same score of the Glasgow Coma Scale are equal."""
    text = variable.categories[slot]
    titles = list(CATEGORY_TITLES.get(variable.name, {}))
    if text in titles:
        return titles.index(text), 0
    number = re.match(r"\d+(\.\d+)?", text)
    points = GLASGOW_POINTS.get(variable.name, {}).get(text, float(number[0]) if number else np.inf)
    is_score = variable.name in GLASGOW_POINTS and np.isfinite(points)
    return points, 0 if is_score else slot


def _level_name(variable: Variable, slots: Sequence[int]) -> str:
    """Return the name of a level: of a score, its points and MIMIC-IV's texts for it."""
    texts = [variable.categories[slot] for slot in slots]
    points = GLASGOW_POINTS.get(variable.name, {})
    score, _ = _rank(variable, slots[0])
    known = [text for text in points if points[text] == score]
    if known:
        return f"{score:g} {' / '.join([text for text in known if text in texts] or known[:1])}"
    return CATEGORY_TITLES.get(variable.name, {}).get(texts[0], texts[0])


def draw_variable(axis: Axes, variable: Variable, row: Rows, stay: Stay) -> None:
    """Draw the observations of a variable, and the value of each hour until the end or death."""
    until = min(stay.end, stay.death[1]) if stay.death else stay.end
    bins = int(np.searchsorted(stay.edges, until))  # those that begin before it
    edges = np.minimum(stay.edges[: bins + 1], until)
    parts = ((0, min(row.observed_from, bins), GREY, ":"), (row.observed_from, bins, HOURLY, "-"))
    for first, last, color, style in parts:
        if last > first:
            heights = np.append(row.binned[first:last], row.binned[last - 1])
            options: dict[str, Any] = {"color": color, "linestyle": style, "linewidth": 1}
            axis.step(edges[first : last + 1], heights, where="post", **options)
    axis.plot(row.hours, row.values, "o", color=OBSERVED, markeredgewidth=0, **dot_style(len(row.hours)))
    unit = f" [{variable.unit}]" if variable.unit else ""
    write_name(axis, textwrap.fill(f"{variable.name}{unit}", 22))
    if row.levels:
        axis.set_yticks(range(len(row.levels)), row.levels)
        axis.set_ylim(-0.7, len(row.levels) - 0.3)
    else:
        axis.yaxis.set_major_locator(MaxNLocator(2))
        axis.margins(y=0.2)
    if not len(row.hours):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        place: dict[str, Any] = {"transform": axis.transAxes, "ha": "center", "va": "center", "bbox": box}
        axis.text(0.5, 0.5, "never observed", color=GREY, fontsize=TINY_TEXT, **place)


def dot_style(count: int) -> dict[str, Any]:
    """Return the size and opacity of some dots: of many they are smaller, and lines are seen through them."""
    room = POINTS / max(count, 1)  # of a dot, in points
    return {"markersize": float(np.clip(0.6 * room, 1.2, DOT)), "alpha": 1.0 if room >= 2 else 0.5}


def spread(wanted: np.ndarray, width: float, low: float, high: float) -> np.ndarray:
    """Return centres [k] of k boxes of a width, in the order of `wanted` and near it, that do not overlap.

    >>> spread(np.array([1.0, 1.5, 9.0]), 2.0, 0.0, 10.0).tolist()
    [1.0, 3.0, 9.0]
    """
    centres = np.asarray(wanted, float).copy()
    for k in range(len(centres)):
        centres[k] = max(centres[k], centres[k - 1] + width if k else low + width / 2)
    for k in reversed(range(len(centres))):
        limit = centres[k + 1] - width if k + 1 < len(centres) else high - width / 2
        centres[k] = min(centres[k], limit)
    return centres


def draw_images(axis: Axes, stay: Stay) -> None:
    """Draw thumbnails of the X-rays, each with a line to its time; of many, some at equal distances."""
    count = len(stay.image_hours)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_XRAYS)).round().astype(int))
    low, high = axis.get_xlim()
    is_late = stay.death is not None and stay.death[0] > high / 2
    until = stay.death[0] if stay.death and is_late else high  # no thumbnail covers the line of a late death
    inches = WIDTH * (RIGHT - LEFT)
    room = inches * (until - low) / (high - low)
    side = min(0.72 * XRAYS, 0.95 * room / len(chosen))  # of a thumbnail, in inches
    width, height = side / inches * (high - low), side / XRAYS
    base = 0.88 - height
    centres = spread(stay.image_hours[chosen], 1.05 * width, low, until)
    for centre, k in zip(centres, chosen, strict=True):
        image = stay.images[k]
        down, across = (length / max(image.shape) for length in image.shape)  # its shape, in thumbnails
        left, right = centre - across * width / 2, centre + across * width / 2
        extent = (left, right, 0.88 - down * height, 0.88)
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto", extent=extent, zorder=3)
        axis.plot([centre, stay.image_hours[k]], [base, 0], "-", color=XRAY, linewidth=0.9, zorder=1)
        text = f"{stay.views[k]}, {stay.image_hours[k]:.1f} h"
        axis.text(centre, 0.91, text, ha="center", va="bottom", fontsize=TINY_TEXT)
    axis.set(xlim=(low, high), ylim=(0, 1), yticks=[])
    axis.spines[["left", "right", "top"]].set_visible(False)
    shown = "" if len(chosen) == count else f"\n({len(chosen)} of {count})"
    write_name(axis, f"X-rays{shown}")


def write_name(axis: Axes, name: str) -> None:
    """Write what a row shows on its left."""
    axis.text(-0.36, 0.5, name, transform=axis.transAxes, va="center", fontsize=SMALL_TEXT)
