"""One stay: its variables and X-rays over the hours, with the labels and predictions of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datasets.data_config import SPLIT_SETTINGS, DataConfig
from datasets.other_splits import open_store
from datasets.schema import Variable
from evaluation.plots.figures import Picture
from evaluation.plots.palette import GREEN
from evaluation.plots.record_predictions import (
    BELOW,
    Predictor,
    Series,
    draw_series,
    height_below,
    panel_height,
    read_series,
)
from evaluation.plots.record_stay import (
    DOT,
    GREY,
    HOURLY,
    LEFT,
    OBSERVED,
    RIGHT,
    TINY_TEXT,
    WIDTH,
    XRAY,
    XRAYS,
    Stay,
    draw_images,
    draw_variable,
    read_stay,
    rows_of,
    select_variables,
)
from evaluation.plots.style import SMALL_TEXT
from tasks import TaskName, get_task
from tasks.task import Task
from utils.config import from_dict
from utils.yaml_files import read_yaml_mapping

DEATH, END, PREDICTION = "#7F0000", "#777777", GREEN
ROW, CATEGORY, GAP, TITLE_GAP, TOP = 0.5, 0.17, 0.09, 0.22, 1.45  # heights in inches
FEW_TIMES = 3  # prediction times that are marked in all rows
TICK_HOURS = (1, 2, 4, 6, 12, 24, 48, 96, 168, 336)  # between the hour numbers, of which there are 12 at most
MOST_TICKS = 12
XRAY_LINE: dict[str, Any] = {"color": XRAY, "linewidth": 0.7, "linestyle": (0, (4, 3))}
END_LINE: dict[str, Any] = {"color": END, "linewidth": 0.9, "linestyle": (0, (5, 2, 1, 2))}
DEATH_LINE: dict[str, Any] = {"color": DEATH, "linewidth": 1.2}
PREDICTION_LINE: dict[str, Any] = {"color": PREDICTION, "linewidth": 1}


@dataclass(frozen=True)
class Record(Picture):
    """Plot one stay of a store: variables, X-rays, and the labels and predictions of a task.

    The picture shows a patient's record: do not share it.
    """

    source: tyro.conf.Positional[Path]
    """Folder of the store."""
    stay_id: int
    """Stay to show."""
    task: TaskName = ""
    """Task whose prediction times and labels are shown; empty: that of --run, or none."""
    run: Path | None = None
    """Folder of a run, whose predictions are shown; it keeps those of validation and test stays."""
    label: tuple[str, ...] = ()
    """Labels to show; if none is given, the positive ones of the stay, or the first ones."""
    variable: tuple[str, ...] = ()
    """Variables to show; all if none is given."""
    out: Path = Path("results")
    """Folder to write record_<stay_id>.png, or another --format, to."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        store = open_store(replace(self._data(), store=self.source))
        stay = read_stay(store, self.stay_id)
        shown = select_variables(self.variable)
        task = get_task(self._task_name()) if self._task_name() else None
        series = read_series(store, stay, task, self.run, self.label) if task else {}
        self.out.mkdir(parents=True, exist_ok=True)
        by = Predictor.of(self.run, self._config(self.run)) if self.run and series else None
        return draw_record(stay, shown, task, series, by), self.out / f"record_{self.stay_id}.png"

    def _task_name(self) -> str:
        return self.task if self.task or self.run is None else str(self._config(self.run).get("task", ""))

    def _data(self) -> DataConfig:
        """Return settings with the splits of the run, in which the stay's predictions are."""
        data = {} if self.run is None else self._config(self.run).get("data")
        known = data if isinstance(data, dict) else {}
        splits = {name: known[name] for name in SPLIT_SETTINGS if name in known}
        return from_dict(DataConfig, splits, f"{self.run}/config.yaml")

    @staticmethod
    def _config(run: Path) -> dict[str, object]:
        path = run / "config.yaml"
        if not path.is_file():
            raise ValueError(f"--run {run} has no config.yaml; give the folder of a run of run_gpu.py")
        return read_yaml_mapping(path)


def draw_record(
    stay: Stay,
    shown: Sequence[Variable],
    task: Task | None,
    series: Mapping[str, Series],
    by: Predictor | None = None,
) -> Figure:
    """Draw X-rays on top, then a row per variable, and the labels and predictions of a task below.

    `by` is the run whose predictions these are.
    """
    rows = [rows_of(stay, variable) for variable in shown]
    with_xray = bool(len(stay.image_hours))
    heights = [XRAYS] * with_xray + [max(ROW, CATEGORY * (len(row.levels) + 1)) for row in rows]
    gaps, below = [GAP] * len(heights), BELOW + 0.1
    if task is not None and series:
        heights, gaps = [*heights, panel_height(task)], [*gaps, TITLE_GAP]
        below = height_below(stay, task, series, by)
    figure, axes = _stack(heights, gaps, below)
    times = {hour for item in series.values() for hour in item.hours}
    marked = times if len(times) <= FEW_TIMES else set()
    for axis in axes:
        _draw_times(axis, stay, marked, is_images=with_xray and axis is axes[0])
    axes[0].tick_params(top=True, labeltop=True)
    axes[-1].tick_params(labelbottom=True)
    if with_xray:
        draw_images(axes[0], stay)
    for axis, variable, row in zip(axes[with_xray:], shown, rows, strict=False):
        draw_variable(axis, variable, row, stay)
    if task is not None and series:
        draw_series(axes[-1], stay, task, series, by)
    axes[-1].set_xlabel("hours since ICU admission", fontsize=SMALL_TEXT)
    source = f"{stay.data}, predictions of {by.name}" if by else stay.data
    height = figure.get_figheight()
    figure.suptitle(f"{describe_stay(stay)}\n{source}", y=1 - 0.1 / height, va="top", fontsize=10)
    _draw_key(figure, stay, bool(marked))
    return figure


def _stack(heights: Sequence[float], gaps: Sequence[float], below: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes of some heights, one below the other, with gaps above them, in inches."""
    total = TOP + sum(heights) + sum(gaps) + below
    figure = Figure((WIDTH, total))
    bottoms = total - TOP - np.cumsum(np.add(heights, gaps))
    boxes = zip(bottoms, heights, strict=True)
    return figure, [figure.add_axes((LEFT, y / total, RIGHT - LEFT, height / total)) for y, height in boxes]


def hours_between_ticks(end: float) -> int:
    """Return the hours between the numbers of an axis of some hours.

    >>> hours_between_ticks(30), hours_between_ticks(157), hours_between_ticks(492)
    (4, 24, 48)
    """
    return next((step for step in TICK_HOURS if end / step <= MOST_TICKS), TICK_HOURS[-1])


def _draw_times(axis: Axes, stay: Stay, times: set[float], is_images: bool) -> None:
    """Draw hours, days, the end and death in a panel, and X-rays and some prediction times in most."""
    last = stay.death[0] + 0.02 * stay.end if stay.death else stay.end  # with room for a word
    axis.set_xlim(-0.01 * stay.end, max(1.01 * stay.end, last))
    axis.tick_params(labelsize=TINY_TEXT, labelbottom=False)
    step = hours_between_ticks(stay.end)
    days = max(24, step // 4)
    axis.set_xticks(np.arange(0, stay.end + 1e-6, step))
    axis.set_xticks(np.arange(0, stay.end + 1e-6, days), minor=True)
    axis.xaxis.remove_overlapping_locs = False  # a day has its line where it has a number, too
    axis.tick_params(which="minor", length=0)
    axis.grid(False)
    axis.grid(axis="x", which="minor", color="0.9", linewidth=0.6)
    axis.axvline(float(stay.row["los_hours"]), zorder=0, **END_LINE)
    if stay.death:
        _draw_death(axis, *stay.death)
    if is_images:
        return  # lines from the thumbnails show the times
    for hour in stay.image_hours:
        axis.axvline(hour, zorder=0, **XRAY_LINE)
    for hour in times:
        axis.axvline(hour, zorder=0, **PREDICTION_LINE)


def _draw_death(axis: Axes, earliest: float, latest: float) -> None:
    """Draw the line of a death, or the day on which it was if its hour is not known."""
    axis.axvline(earliest, zorder=2, **DEATH_LINE)
    if latest > earliest:
        low, high = axis.get_xlim()
        axis.axvspan(earliest, min(latest, high), color=DEATH, alpha=0.1, linewidth=0, zorder=0)
        axis.set_xlim(low, high)
    box = None if latest > earliest else {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
    place: dict[str, Any] = {"xytext": (2, 0), "textcoords": "offset points", "rotation": 90, "bbox": box}
    place |= {"xycoords": axis.get_xaxis_transform(), "va": "center", "fontsize": TINY_TEXT - 0.5}
    words = "death" if latest == earliest else "day of death"
    axis.annotate(words, (earliest, 0.5), color=DEATH, annotation_clip=False, zorder=4, **place)


def describe_stay(stay: Stay) -> str:
    """Return the line that names a stay."""
    row = stay.row
    words = [f"stay {row['stay_id']}", f"{row['split']} split", f"{row['los_hours']:.1f} hours in the ICU"]
    if {"age", "sex"} <= set(row.index):
        words.append(f"{row['sex']}, {row['age']} years")
    return ", ".join(words)


def _draw_key(figure: Figure, stay: Stay, with_time: bool) -> None:
    """Draw what the marks of the rows mean, of those that there are."""
    dot: dict[str, Any] = {"marker": "o", "markersize": DOT, "linestyle": "none"}
    span = "hour" if stay.timestep == 1 else f"{stay.timestep:g} hours"
    handles = [
        Line2D([], [], color=OBSERVED, markeredgewidth=0, label="observed", **dot),
        Line2D([], [], color=HOURLY, linewidth=1, label=f"value of the {span}, as the model reads it"),
        Line2D([], [], color=GREY, linewidth=1, linestyle=":", label="normal value, nothing observed yet"),
    ]
    if len(stay.image_hours):
        handles.append(Line2D([], [], label="X-ray", **XRAY_LINE))
    if with_time:
        handles.append(Line2D([], [], label="prediction time", **PREDICTION_LINE))
    handles.append(Line2D([], [], label="end of the ICU stay", **END_LINE))
    if stay.death:
        known = stay.death[0] == stay.death[1]
        words = "death" if known else "day of death (hour unknown)"
        handles.append(Line2D([], [], label=words, **DEATH_LINE))
    height = figure.get_figheight()
    options: dict[str, Any] = {"fontsize": SMALL_TEXT, "frameon": False, "borderaxespad": 0}
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1 - 0.54 / height), ncols=4, **options
    )
    text = f"Of several values in the {span} the last counts. Its line spans the {span}, and so it can begin "
    place: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": TINY_TEXT + 0.5, "color": "0.35"}
    text += "before the dot; hours without a value keep the last one."
    figure.text(0.5, 1 - 0.98 / height, text, **place)
