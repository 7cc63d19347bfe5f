"""One stay: its variables and X-rays over the hours, with the labels and predictions of a task."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from datasets.events.buckets import GLASGOW_POINTS
from datasets.other_splits import open_store
from datasets.samples import SPLIT_SETTINGS, DataConfig
from datasets.schema import Variable, variables
from datasets.store import Store
from evaluation.names import title_of
from evaluation.plots.figures import Picture
from evaluation.plots.style import SMALL_TEXT
from evaluation.predictions import read_predictions
from tasks import TaskName, get_task
from tasks.task import Task
from utils.config import from_dict, read_yaml_mapping

# Colours of Okabe and Ito (2008), which people with any colour vision can tell apart.
OBSERVED, CARRIED, XRAY, PREDICTION, GREY = "#000000", "#0072B2", "#D55E00", "#009E73", "#999999"
LABEL_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WIDTH, LEFT, RIGHT = 11.0, 0.28, 0.97  # inches, and the fractions of it between which the axes lie
ROW, CATEGORY, XRAYS, TASK_PANEL, MARGIN = 0.5, 0.17, 1.5, 1.6, 0.9  # heights in inches
MOST_XRAYS = 10
FEW_TIMES = 3  # prediction times that are marked in all rows
TINY_TEXT = 6.5


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
        run = self.run.resolve().name if self.run and series else ""
        return draw_record(stay, shown, task, series, run), self.out / f"record_{self.stay_id}.png"

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


class Series(NamedTuple):
    """A label at the n prediction times of a stay, and the probabilities of a run, if there is one."""

    hours: np.ndarray
    truth: np.ndarray  # [n], NaN if unknown
    probability: np.ndarray | None


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


def read_series(
    store: Store, stay: Stay, task: Task, run: Path | None, labels: Sequence[str]
) -> dict[str, Series]:
    """Return the labels of a task at the prediction times of a stay; of an ordinal task, the bins.

    Raises:
        ValueError: The stay has no sample of the task, or the run no prediction of it, or a label is unknown.
    """
    split, stay_id = stay.row["split"], stay.row["stay_id"]
    rows = store.listfile(task.name, split)
    rows = rows[rows["stay_id"] == stay_id].sort_values("end_hours", kind="stable")
    if rows.empty:
        raise ValueError(
            f"stay {stay_id} is no sample of {task.name}; leave out --task, or choose a stay of its listfiles"
        )
    truth = task.encode(rows[list(task.labels)].to_numpy(np.float64))
    shown = _select_labels(task, truth, labels)
    probability = _read_probability(run, task, split, rows, shown) if run else {}
    hours = rows["end_hours"].to_numpy(np.float64)
    return {
        label: Series(hours, truth[:, task.labels.index(label)], probability.get(label)) for label in shown
    }


def _select_labels(task: Task, truth: np.ndarray, labels: Sequence[str]) -> list[str]:
    if unknown := [label for label in labels if label not in task.labels]:
        choices = ", ".join(task.labels)
        raise ValueError(f"{task.name} has no label {unknown[0]}; choose --label from {choices}")
    if len(labels) > len(LABEL_COLORS):
        raise ValueError(f"--label: at most {len(LABEL_COLORS)} labels can be distinguished; give fewer")
    if labels:
        return list(labels)
    positive = [name for name, column in zip(task.labels, truth.T, strict=True) if (column == 1).any()]
    return (positive if task.kind == "multilabel" and positive else list(task.labels))[: len(LABEL_COLORS)]


def _read_probability(
    run: Path, task: Task, split: str, rows: pd.DataFrame, labels: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return a run's probabilities [n] of each label at the samples; of an ordinal task its likeliest bin."""
    path = run / f"predictions_{split}.csv"
    if split == "train":
        raise ValueError(f"{run} keeps no predictions of train, the split of the stay; leave out --run")
    table = read_predictions(path)
    table = table[table["stay_id"] == rows["stay_id"].iloc[0]]
    wide = table.pivot_table("probability", "end_hours", "label", sort=False)
    names = (
        [f"{task.labels[0]}[{k}]" for k in range(task.classes)] if task.kind == "ordinal" else list(labels)
    )
    if missing := [name for name in names if name not in wide]:
        raise ValueError(f"{path} has no {missing[0]} of the stay; give a run of {task.name} on this store")
    # Predictions of some of the samples, such as those with an X-ray, leave the others without a point.
    nearest = np.abs(wide.index.to_numpy()[None] - rows["end_hours"].to_numpy()[:, None])
    values = wide[names].to_numpy()[nearest.argmin(axis=1)]
    values[nearest.min(axis=1) > 1e-6] = np.nan
    if task.kind != "ordinal":
        return dict(zip(names, values.T, strict=True))
    known = ~np.isnan(values).any(axis=1)
    likeliest = np.where(known, np.nan_to_num(values).argmax(axis=1), np.nan)
    return {task.labels[0]: likeliest}


def draw_record(
    stay: Stay, shown: Sequence[Variable], task: Task | None, series: Mapping[str, Series], run: str = ""
) -> Figure:
    """Draw X-rays on top, then a row per variable, and the labels and predictions of a task below.

    `run` names the run whose predictions these are.
    """
    rows = [rows_of(stay, variable) for variable in shown]
    heights = [XRAYS] if len(stay.image_hours) else []
    heights += [max(ROW, CATEGORY * (len(row.levels) + 1)) for row in rows]
    heights += [TASK_PANEL] if series else []
    legend_rows = 1 + -(-len(series) // 2) if series else 0
    total = sum(heights) * 1.12 + MARGIN + 0.2 * legend_rows + 0.5
    figure = Figure((WIDTH, total))
    top, bottom = 1 - MARGIN / total, (0.5 + 0.2 * legend_rows) / total
    grid = figure.add_gridspec(
        len(heights), 1, height_ratios=heights, left=LEFT, right=RIGHT, top=top, bottom=bottom, hspace=0.15
    )
    axes = [figure.add_subplot(grid[number]) for number in range(len(heights))]
    times = {hour for item in series.values() for hour in item.hours}
    end = float(stay.edges[-1])
    for axis in axes:
        axis.grid(False)
        axis.set_xlim(-0.01 * end, 1.01 * end)
        axis.tick_params(labelsize=TINY_TEXT, labelbottom=axis is axes[-1])
        for hour in stay.image_hours:
            axis.axvline(hour, color=XRAY, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        for hour in times if len(times) <= FEW_TIMES and axis is not axes[0] else ():
            axis.axvline(hour, color=PREDICTION, linewidth=1, zorder=0)
    panels = axes[bool(len(stay.image_hours)) :]
    if len(stay.image_hours):
        draw_images(axes[0], stay)
    for axis, variable, row in zip(panels, shown, rows, strict=False):
        draw_variable(axis, variable, row, stay)
    if task is not None and series:
        draw_series(axes[-1], task, series)
    axes[-1].set_xlabel("hours since ICU admission", fontsize=SMALL_TEXT)
    source = f"{stay.data}, predictions of {run}" if run else stay.data
    figure.suptitle(f"{describe_stay(stay)}\n{source}", y=1 - 0.1 / total, va="top", fontsize=10)
    with_time = 0 < len(times) <= FEW_TIMES
    _draw_key(figure, 1 - 0.58 / total, with_xray=bool(len(stay.image_hours)), with_time=with_time)
    return figure


def describe_stay(stay: Stay) -> str:
    """Return the line that names a stay."""
    row = stay.row
    words = [f"stay {row['stay_id']}", f"{row['split']} split", f"{row['los_hours']:.1f} hours in the ICU"]
    if {"age", "sex"} <= set(row.index):
        words.append(f"{row['sex']}, {row['age']} years")
    return ", ".join(words)


def _draw_key(figure: Figure, y: float, with_xray: bool, with_time: bool) -> None:
    """Draw what the marks of the rows mean, of those that there are."""
    handles = [
        Line2D([], [], color=OBSERVED, marker="o", markersize=3, linestyle="none", label="observed"),
        Line2D([], [], color=CARRIED, label="carried forward"),
        Line2D([], [], color=GREY, linestyle=":", label="normal value, nothing observed yet"),
    ]
    if with_xray:
        handles.append(Line2D([], [], color=XRAY, linestyle=(0, (4, 3)), linewidth=0.7, label="X-ray"))
    if with_time:
        handles.append(Line2D([], [], color=PREDICTION, linewidth=1, label="prediction"))
    options: dict[str, Any] = {"fontsize": SMALL_TEXT, "frameon": False, "borderaxespad": 0}
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, y), ncols=5, **options)


class Rows(NamedTuple):
    """What a variable's row shows: its observations [n], its value in each bin [T], and its categories.

    Values of a variable with categories are indices of `levels`, the categories in use from the worst to the
    best; others have none.
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
    used = sorted({*values.astype(int).tolist(), *binned.tolist()}, key=lambda slot: _rank(variable, slot))
    level = np.zeros(len(variable.categories), int)
    level[used] = np.arange(len(used))
    levels = tuple(variable.categories[slot] for slot in used)
    return Rows(hours, level[values.astype(int)], level[binned], first, levels)


def _rank(variable: Variable, slot: int) -> tuple[float, int]:
    """Return where a category stands: by its points on the Glasgow Coma Scale, or by its number."""
    text = variable.categories[slot]
    number = re.match(r"\d+(\.\d+)?", text)
    points = GLASGOW_POINTS.get(variable.name, {}).get(text, float(number[0]) if number else np.inf)
    return points, slot


def draw_variable(axis: Axes, variable: Variable, row: Rows, stay: Stay) -> None:
    """Draw the observations of a variable, and between them what a model sees."""
    edges = stay.edges
    parts = ((0, row.observed_from, GREY, ":"), (row.observed_from, len(row.binned), CARRIED, "-"))
    for first, last, color, style in parts:
        if last > first:
            heights = np.append(row.binned[first:last], row.binned[last - 1])
            axis.step(
                edges[first : last + 1], heights, where="post", color=color, linestyle=style, linewidth=1
            )
    axis.plot(row.hours, row.values, "o", color=OBSERVED, markersize=2)
    unit = f" [{variable.unit}]" if variable.unit else ""
    _write_name(axis, textwrap.fill(f"{variable.name}{unit}", 22))
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
    inches = WIDTH * (RIGHT - LEFT)
    side = min(0.72 * XRAYS, 0.95 * inches / len(chosen))  # of a thumbnail, in inches
    width, height = side / inches * (high - low), side / XRAYS
    base = 0.88 - height
    centres = spread(stay.image_hours[chosen], 1.05 * width, low, high)
    for centre, k in zip(centres, chosen, strict=True):
        image = stay.images[k]
        down, across = (length / max(image.shape) for length in image.shape)  # its shape, in thumbnails
        left, right = centre - across * width / 2, centre + across * width / 2
        extent = (left, right, 0.88 - down * height, 0.88)
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto", extent=extent, zorder=3)
        axis.plot([centre, stay.image_hours[k]], [base, 0], "-", color=XRAY, linewidth=0.9, zorder=1)
        text = f"{stay.views[k]}, {stay.image_hours[k]:.1f} h"
        axis.text(centre, 0.91, text, ha="center", va="bottom", fontsize=TINY_TEXT)
    for line in axis.lines[:count]:
        line.set_visible(False)  # the times of the rows below; here the lines from the thumbnails show them
    axis.set(xlim=(low, high), ylim=(0, 1), yticks=[], xticks=[])
    axis.spines[["left", "right", "top"]].set_visible(False)
    shown = "" if len(chosen) == count else f"\n({len(chosen)} of {count})"
    _write_name(axis, f"X-rays{shown}")


def draw_series(axis: Axes, task: Task, series: Mapping[str, Series]) -> None:
    """Draw labels and predictions: a filled mark where the label is positive, an empty one where it is not.

    With a run the height is its probability, without one it is the label, or its row if there are several;
    for an ordinal task it is the bin.
    """
    predicted = any(item.probability is not None for item in series.values())
    marks = "" if task.kind == "ordinal" else "\nfilled: positive\nempty: negative"
    _write_name(axis, f"{textwrap.fill(title_of(task.name), 22)}{marks}")
    if len(series) > 1 and not predicted:
        draw_label_rows(axis, series)
        return
    for (label, item), color in zip(series.items(), LABEL_COLORS, strict=False):
        draw = draw_bins if task.kind == "ordinal" else draw_label
        draw(axis, label if len(task.labels) > 1 else title_of(task.name), item, color)
    low, high, what = -0.08, 1.08, "probability" if predicted else "label"
    if task.kind == "ordinal":
        low, high, what = -0.5, task.classes - 0.5, "" if task.class_titles else "bin"
        axis.set_yticks(range(len(task.class_titles)), task.class_titles)
    axis.set_ylim(low, high)
    axis.set_ylabel(what, fontsize=SMALL_TEXT)
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.42 / TASK_PANEL),
        ncols=2,
        fontsize=TINY_TEXT + 0.5,
        frameon=False,
    )


def draw_label_rows(axis: Axes, series: Mapping[str, Series]) -> None:
    """Draw a row for each label, the first on top."""
    for row, (item, color) in enumerate(zip(series.values(), LABEL_COLORS, strict=False)):
        _mark(axis, item, np.full(len(item.hours), float(row)), color)
    names = [textwrap.shorten(label, 30, placeholder="...") for label in series]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)


def _mark(axis: Axes, item: Series, height: np.ndarray, color: str) -> None:
    """Draw a mark at each prediction time, filled where the label is positive."""
    for value, face in ((1, color), (0, "white")):
        at = item.truth == value
        axis.scatter(item.hours[at], height[at], 12, facecolor=face, edgecolor=color, linewidth=0.8, zorder=3)


def draw_label(axis: Axes, label: str, item: Series, color: str) -> None:
    """Draw the probabilities of a label, or the label itself, at its prediction times."""
    height = item.truth if item.probability is None else item.probability
    axis.plot(item.hours, height, color=color, linewidth=1, label=_describe_label(label, item))
    _mark(axis, item, height, color)


def draw_bins(axis: Axes, label: str, item: Series, color: str) -> None:
    """Draw the true bins of an ordinal label, and the predicted ones if there are some, as steps."""
    options: dict[str, Any] = {"where": "post", "linewidth": 1}
    axis.step(item.hours, item.truth, "--", color=OBSERVED, label=f"{label}: true bin", **options)
    if item.probability is not None:
        axis.step(item.hours, item.probability, color=color, label="likeliest bin", **options)


def _describe_label(label: str, item: Series) -> str:
    """Return the name of a label in the legend, with its value if there is one prediction time."""
    if len(item.hours) > 1:
        return label
    truth = {1.0: "positive", 0.0: "negative"}.get(float(item.truth[0]), "unknown")
    guess = "" if item.probability is None else f", predicted {item.probability[0]:.2f}"
    return f"{textwrap.shorten(label, 50, placeholder='...')}: {truth}{guess}"


def _write_name(axis: Axes, name: str) -> None:
    """Write what a row shows on its left."""
    axis.text(-0.36, 0.5, name, transform=axis.transAxes, va="center", fontsize=SMALL_TEXT)
