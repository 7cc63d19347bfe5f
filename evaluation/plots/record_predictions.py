"""The last panel of the picture of a stay: the labels of a task, and the predictions of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from datasets.data_config import SAMPLE_SELECTIONS
from datasets.store import Store
from evaluation.names import SPLIT_TITLES, label_title, title_of
from evaluation.plots.palette import BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from evaluation.plots.record_stay import OBSERVED, POINTS, TINY_TEXT, Stay, write_name
from evaluation.plots.style import SMALL_TEXT
from evaluation.predictions import read_predictions
from evaluation.results import read_results
from tasks.task import Task

LABEL_COLORS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
TASK_PANEL = 1.6  # inches
LEGEND_LINE = 0.17
BELOW = 0.42  # inches of hour numbers and their name below the panel
SCALES = (0.05, 0.1, 0.2, 0.5, 1.0)  # highest probability of the axis
UNNAMED = ("negative", "positive")  # classes of a task that names none
RATE_LINE: dict[str, Any] = {"color": "#666666", "linewidth": 0.8, "linestyle": (0, (6, 4))}
SHADE = "Greens"


class Series(NamedTuple):
    """A label at the n prediction times of a stay, and the probabilities of a run, if there is one.

    For an ordinal label of K bins, `probability` is the likeliest one.
    """

    hours: np.ndarray
    truth: np.ndarray  # [n], NaN if unknown
    probability: np.ndarray | None  # [n], NaN at times that the run does not predict
    rate: float = np.nan  # of positives among the predictions of the split
    bins: np.ndarray | None = None  # [n, K], the probability of each bin


@dataclass(frozen=True)
class Predictor:
    """What readers have to know of a run."""

    name: str
    method: str = ""  # protocol, fusion and objective
    reads: str = ""  # which modalities
    pairs_only: bool = False  # whether it has samples with an X-ray alone

    @classmethod
    def of(cls, run: Path, config: Mapping[str, Any]) -> Predictor:
        """Return what the config.yaml of a run, and its result table if that is where it says, tell."""
        model = config.get("model", "")  # of training.baselines, whose data_pairs is no part of `data`
        protocol, fusion = ("baseline", model) if model else (config.get("protocol"), config.get("fusion"))
        parts = (protocol, fusion, _objective(run, config))
        method = ", ".join(dict.fromkeys(title_of(str(part)) for part in parts if part))
        data = config.get("data")
        pairs = (data if isinstance(data, Mapping) else config).get("data_pairs")
        selection = SAMPLE_SELECTIONS.get(str(pairs))
        if selection is None:
            return cls(run.resolve().name, method)
        ehr, cxr = selection.ehr and fusion != "cxr", selection.cxr and fusion != "ehr" and not model
        reads = {(True, False): "the record alone", (False, True): "X-rays alone"}
        words = reads.get((ehr, cxr), "records and X-rays")
        return cls(run.resolve().name, method, f"reads {words}", not selection.unpaired)

    @property
    def title(self) -> str:
        """The title of the panel of its predictions."""
        return "; ".join(part for part in (f"predictions of {self.name}: {self.method}", self.reads) if part)


def _objective(run: Path, config: Mapping[str, Any]) -> str:
    """Return what trained the encoders of a run before, in words, "" for nothing."""
    names = ("load_state", "load_state_ehr", "load_state_cxr", "cxr_weights")
    start = next((str(config[name]) for name in names if config.get(name)), "")
    table = Path(str(config.get("results_dir"))) / f"{config.get('task')}.csv"
    if start and table.is_file():
        rows = read_results(table)
        found = rows.loc[rows["run"] == run.resolve().name, "objective"]
        if len(found):
            return f"{title_of(str(found.iloc[-1]))} encoders"
    return "random encoders" if start == "random" else start and f"encoders of {start}"


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
    hours = rows["end_hours"].to_numpy(np.float64)
    series = {label: Series(hours, truth[:, task.labels.index(label)], None) for label in shown}
    return _add_predictions(series, run, task, split, stay_id) if run else series


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


def _add_predictions(
    series: Mapping[str, Series], run: Path, task: Task, split: str, stay_id: int
) -> dict[str, Series]:
    """Return labels with a run's probabilities of them, and the rates of positives of its split."""
    path = run / f"predictions_{split}.csv"
    if split == "train":
        raise ValueError(f"{run} keeps no predictions of train, the split of the stay; leave out --run")
    table = read_predictions(path)
    own = table[table["stay_id"] == stay_id]
    wide = own.pivot_table("probability", "end_hours", "label", sort=False)
    is_ordinal = task.kind == "ordinal"
    names = [f"{task.labels[0]}[{k}]" for k in range(task.classes)] if is_ordinal else list(series)
    if missing := [name for name in names if name not in wide]:
        raise ValueError(f"{path} has no {missing[0]} of the stay; give a run of {task.name} on this store")
    # Predictions of some of the samples, such as those with an X-ray, leave the others without a point.
    hours = next(iter(series.values())).hours
    nearest = np.abs(wide.index.to_numpy()[None] - hours[:, None])
    values = wide[names].to_numpy()[nearest.argmin(axis=1)]
    values[nearest.min(axis=1) > 1e-6] = np.nan
    if is_ordinal:
        known = ~np.isnan(values).any(axis=1)
        likeliest = np.where(known, np.nan_to_num(values).argmax(axis=1), np.nan)
        return {name: item._replace(probability=likeliest, bins=values) for name, item in series.items()}
    rates = table.groupby("label")["truth"].mean()
    return {
        name: item._replace(probability=column, rate=float(rates[name]))
        for (name, item), column in zip(series.items(), values.T, strict=True)
    }


def scale_of(series: Mapping[str, Series]) -> float:
    """Return the highest probability of the axis: one of SCALES, so that pictures can be compared.

    It is the first with room for all probabilities, and never less than 0.05, so that differences of
    thousandths look small. It has room for the rate of positives, too, unless the probabilities would then
    fill less than a quarter of the axis.

    >>> low = Series(np.arange(2.0), np.zeros(2), np.array([0.02, 0.03]))
    >>> scale_of({"y_true": low._replace(rate=0.02)}), scale_of({"y_true": low._replace(rate=0.08)})
    (0.05, 0.1)
    >>> scale_of({"y_true": low._replace(rate=0.3)})
    0.05
    """
    shown = [item.probability for item in series.values() if item.probability is not None]
    largest = float(np.nanmax([0.0, *np.concatenate(shown)]))
    rate = max(float(np.nan_to_num(item.rate)) for item in series.values())
    alone, with_rate = _scale_for(largest), _scale_for(max(largest, rate))
    return with_rate if with_rate <= 4 * largest else alone


def _scale_for(largest: float) -> float:
    return next((scale for scale in SCALES if scale >= 1.1 * largest), SCALES[-1])


def notes_of(stay: Stay, series: Mapping[str, Series], by: Predictor | None) -> list[str]:
    """Return what has to be said below the panel, a line each."""
    first = next(iter(series.values())).hours[0]
    if by is None or not by.pairs_only or not len(stay.image_hours) or first >= stay.image_hours[0]:
        return []
    return ["no prediction before the first X-ray: trained on stays with one"]


def panel_height(task: Task) -> float:
    """Return the height in inches of the panel of a task."""
    return TASK_PANEL * (1.3 if task.kind == "ordinal" else 1)


def height_below(stay: Stay, task: Task, series: Mapping[str, Series], by: Predictor | None) -> float:
    """Return the inches that the panel needs below it."""
    lines = -(-len(handles_of(task, series, "test")) // 2) + len(notes_of(stay, series, by))
    return BELOW + LEGEND_LINE * lines + 0.1


def draw_series(
    axis: Axes, stay: Stay, task: Task, series: Mapping[str, Series], by: Predictor | None = None
) -> None:
    """Draw labels and predictions: a filled mark where the label is positive, an empty one where it is not.

    With a run the height is its probability, without one it is the label, or its row if there are several;
    for an ordinal task it is the bin.
    """
    write_name(axis, textwrap.fill(title_of(task.name), 22))
    if by is not None:
        axis.set_title(by.title, loc="left", fontsize=SMALL_TEXT, pad=4)
    predicted = any(item.probability is not None for item in series.values())
    if task.kind == "ordinal":
        _draw_bins(axis, task, next(iter(series.values())))
    elif predicted:
        _draw_probabilities(axis, series)
    elif len(series) > 1:
        _draw_label_rows(axis, series)
    else:
        _draw_classes(axis, task, next(iter(series.values())))
    height = panel_height(task)
    handles = handles_of(task, series, stay.row["split"])
    top = -BELOW / height
    options: dict[str, Any] = {"fontsize": TINY_TEXT + 0.5, "frameon": False, "borderaxespad": 0, "ncols": 2}
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, top), **options)
    for row, note in enumerate(notes_of(stay, series, by), -(-len(handles) // 2)):
        place: dict[str, Any] = {"transform": axis.transAxes, "ha": "center", "va": "top"}
        axis.text(0.5, top - LEGEND_LINE * (row + 0.3) / height, note, fontsize=TINY_TEXT + 0.5, **place)


def _draw_label_rows(axis: Axes, series: Mapping[str, Series]) -> None:
    """Draw a row for each label, the first on top."""
    for row, (item, color) in enumerate(zip(series.values(), LABEL_COLORS, strict=False)):
        _mark(axis, item, np.full(len(item.hours), float(row)), color)
    names = [textwrap.shorten(label, 30, placeholder="...") for label in series]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)


def _draw_classes(axis: Axes, task: Task, item: Series) -> None:
    """Draw one label: its classes are the two rows."""
    _mark(axis, item, item.truth, LABEL_COLORS[0])
    axis.set_yticks((0, 1), [textwrap.fill(words, 26) for words in classes_of(task)])
    axis.set_ylim(-0.5, 1.5)


def _draw_probabilities(axis: Axes, series: Mapping[str, Series]) -> None:
    """Draw the probabilities of labels over the hours; beside a single label, its rate of positives."""
    for item, color in zip(series.values(), LABEL_COLORS, strict=False):
        if item.probability is not None:
            known = ~np.isnan(item.probability)
            axis.plot(item.hours[known], item.probability[known], color=color, linewidth=1)
            _mark(axis, item, item.probability, color)
    top, rate = scale_of(series), next(iter(series.values())).rate
    if len(series) == 1 and rate <= top:
        axis.axhline(rate, zorder=1, **RATE_LINE)
    axis.set_ylim(0, top)
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_ylabel(f"probability\n(scale 0 to {top:g})", fontsize=SMALL_TEXT)


def _mark(axis: Axes, item: Series, height: np.ndarray, color: str) -> None:
    """Draw a mark at each prediction time, filled where the label is positive."""
    size = max(4.0, min(12.0, 2 * POINTS / max(len(item.hours), 1)))
    for value, face in ((1, color), (0, "white")):
        at = item.truth == value
        options: dict[str, Any] = {"facecolor": face, "edgecolor": color, "linewidth": 0.8, "zorder": 3}
        axis.scatter(item.hours[at], height[at], size, clip_on=False, **options)


def _draw_bins(axis: Axes, task: Task, item: Series) -> None:
    """Draw true and likeliest bins of an ordinal label as steps, over a shade of their probabilities."""
    options: dict[str, Any] = {"where": "post", "linewidth": 1}
    if item.bins is not None and item.probability is not None:
        step = np.median(np.diff(item.hours)) if len(item.hours) > 1 else 1.0
        edges = np.append(item.hours, item.hours[-1] + step)
        shade = np.ma.masked_invalid(item.bins.T)
        heights = np.arange(task.classes + 1) - 0.5
        axis.pcolormesh(
            edges, heights, shade, cmap=SHADE, vmin=0, alpha=0.7, linewidth=0, rasterized=True, zorder=-1
        )
        axis.step(item.hours, item.probability, color=LABEL_COLORS[0], **options)
    axis.step(item.hours, item.truth, "--", color=OBSERVED, **options)
    axis.set_ylim(-0.5, task.classes - 0.5)
    axis.set_yticks(range(len(task.class_titles)), task.class_titles)
    axis.set_ylabel("" if task.class_titles else "bin", fontsize=SMALL_TEXT)


def classes_of(task: Task) -> tuple[str, ...]:
    """Return what a label of 0 and of 1 mean in words."""
    return task.class_titles or UNNAMED


def handles_of(task: Task, series: Mapping[str, Series], split: str) -> list[Line2D | Patch]:
    """Return the marks of the panel with their meaning, as they are drawn."""
    if task.kind == "ordinal":
        return _bin_handles(task, next(iter(series.values())))
    negative, positive = classes_of(task)
    handles: list[Line2D | Patch]
    one = LABEL_COLORS[0] if len(series) == 1 else "#666666"
    lone = next(iter(series.values()))
    handles = [_handle(one, one, f"filled: {positive}"), _handle(one, "white", f"empty: {negative}")]
    if lone.probability is None:
        return handles
    if len(series) > 1:
        for (label, item), color in zip(series.items(), LABEL_COLORS, strict=False):
            short = textwrap.shorten(label, 50, placeholder="...")
            handles.append(_label_handle(f"{short} (rate {item.rate:.2g})", item, color, UNNAMED))
        return handles
    above = ", above the scale" if lone.rate > scale_of(series) else ""
    text = f"rate among the {SPLIT_TITLES[split]} samples: {lone.rate:.2g}{above}"
    rate = Line2D([], [], label=text, **RATE_LINE)
    name = label_title(next(iter(series)), task.name)
    return [_label_handle(name, lone, one, (negative, positive)), rate, *handles]


def _bin_handles(task: Task, item: Series) -> list[Line2D | Patch]:
    name = label_title(task.labels[0], task.name)
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=OBSERVED, linestyle="--", linewidth=1, label=f"{name}: true bin")
    ]
    if item.bins is None:
        return handles
    largest = float(np.nanmax(item.bins, initial=0.0))
    return [
        *handles,
        Line2D([], [], color=LABEL_COLORS[0], linewidth=1, label="likeliest bin"),
        Patch(color="#41ab5d", label=f"probability of each bin: darker is more, up to {largest:.2f}"),
    ]


def _handle(color: str, face: str, label: str, linewidth: float = 0) -> Line2D:
    marks: dict[str, Any] = {
        "marker": "o",
        "markersize": 3.5,
        "markerfacecolor": face,
        "markeredgewidth": 0.8,
    }
    return Line2D([], [], color=color, linewidth=linewidth, label=label, **marks)


def _label_handle(label: str, item: Series, color: str, titles: Sequence[str]) -> Line2D:
    """Return the mark of a label; if there is one prediction time, with its class and its probability."""
    if len(item.hours) > 1 or item.probability is None:
        return _handle(color, "white", f"probability of {label}", 1)
    truth, guess = float(item.truth[0]), float(item.probability[0])
    known = "unknown" if np.isnan(truth) else titles[int(truth)]
    predicted = "not predicted" if np.isnan(guess) else f"predicted {guess:.2f}"
    return _handle(color, color if truth == 1 else "white", f"{label}: {known}, {predicted}")
