"""Plots of runs and results, written as PNG beside their source: `python -m evaluation.plots`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import pandas as pd
import tyro
import yaml
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation import metrics
from evaluation.bootstrap import Resamples
from evaluation.compare import subjects_of
from evaluation.results import COLUMNS, EMBEDDINGS, PREDICTIONS, read_rows
from utils.cli import run_cli
from utils.files import atomic_write

PANEL = (4.8, 3.6)  # inches, width and height
GRID = np.linspace(0, 1, 101)
NOT_SCORES = ("epoch", "step", "seconds", "samples_per_second")  # columns of log.csv that tell of progress
MANY = 8  # more lines than these are thin, and only their mean is named
SMALL_TEXT = 8
POINTS = 3000  # samples that t-SNE can place in about a minute

HEEDED = {  # flags, by figure; the others have none
    "roc": ("split", "label", "resamples", "seed", "store"),
    "calibration": ("split", "label"),
    "bars": ("split", "metric", "label", "run", "save_dir"),
    "heat": ("split", "metric", "label", "run", "save_dir"),
    "map": ("label", "before", "tsne", "seed"),
}


@dataclass(frozen=True)
class PlotsConfig:
    """Draw from the files that runs leave; the figure is written beside its source and its path printed."""

    figure: tyro.conf.Positional[Literal["curves", "epochs", "roc", "calibration", "bars", "heat", "map"]]
    """curves: loss and scores by epoch, from a run's folder. epochs: scores of a pretraining's epochs, from a
    results_label_<task>.csv. roc: ROC and precision-recall curves, from a run's folder. calibration: from a
    run's folder. bars, heat: scores by label, and by run and label, from a results/<task>.csv. map:
    embeddings in two dimensions, from the folder of a run with --protocol lineareval, or from an .npz with
    `embeddings` [n, D] and, if any, `labels` [n]."""
    source: tyro.conf.Positional[Path]
    """The run's folder, or the file."""
    split: str = "test"
    """roc, calibration, bars, heat: the split to show."""
    metric: str = "auroc"
    """bars, heat: the score to show."""
    label: tuple[str, ...] = ()
    """roc, calibration, bars, heat: the labels to show; all if none is given. map: the label to colour by."""
    run: tuple[str, ...] = ()
    """bars, heat: the runs to show; all if none is given."""
    save_dir: Path = Path("runs")
    """bars, heat: folder of the runs, which tell whether their data are synthetic."""
    before: Path | None = None
    """map: run to show beside it, such as one with --load_state random: the embeddings before pretraining."""
    tsne: bool = False
    """map: place by t-SNE, which keeps neighbours together, in place of the two main components."""
    resamples: int = 200
    """roc: draws of the bootstrap that gives the band around the curve; 0 for none."""
    seed: int = 0
    """roc, map: start of the random numbers of the bootstrap, of t-SNE and of which samples it places."""
    store: str = ""
    """roc: folder of the store, which tells the subject of each stay for the band; empty: that of the run."""


def main(config: PlotsConfig) -> None:
    """Draw one figure, write it and print where."""
    check(config)
    figure, path = DRAWINGS[config.figure](config)
    save(figure, path)
    print(path)


def check(config: PlotsConfig) -> None:
    """ValueError for a flag that the figure would not heed."""
    default = PlotsConfig(config.figure, config.source)
    names = [field.name for field in fields(config) if field.name not in ("figure", "source")]
    given = [f"--{name}" for name in names if getattr(config, name) != getattr(default, name)]
    idle = [flag for flag in given if flag.removeprefix("--") not in HEEDED.get(config.figure, ())]
    if idle:
        raise ValueError(f"{config.figure} does not heed {', '.join(idle)}; leave it out")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with atomic_write(Path(path)) as partial:
        figure.savefig(partial, format="png", dpi=150, metadata={"Software": None})


def draw_curves(log: pd.DataFrame, title: str) -> Figure:
    """A panel for each term of a training log: train_loss and val_loss in one, as they are both loss."""
    terms: dict[str, list[str]] = {}
    for column in sorted(log.columns.drop([name for name in NOT_SCORES if name in log]), key="lr".__eq__):
        terms.setdefault(column.removeprefix("train_").removeprefix("val_"), []).append(column)
    figure, axes = _panels(len(terms), title)
    for axis, (term, columns) in zip(axes, terms.items(), strict=True):
        for column in columns:
            axis.plot(log["epoch"], log[column], label=column, marker="." if len(log) < 30 else None)
        axis.set(xlabel="epoch", ylabel=term)
        axis.legend()
    return figure


def draw_epochs(table: pd.DataFrame, title: str) -> Figure:
    """A panel for each mean score by epoch, a line a split; the best validation epoch is marked in the first.

    `table` has the columns epoch and <split>_<score>; those of single labels, in brackets, are not drawn.
    """
    columns = [name for name in table if "_" in name and "[" not in name]
    scores = list(dict.fromkeys(name.partition("_")[2] for name in columns))
    figure, axes = _panels(len(scores), title)
    for axis, score in zip(axes, scores, strict=True):
        for name in (name for name in columns if name.endswith(f"_{score}")):
            axis.plot(table["epoch"], table[name], marker=".", label=name.partition("_")[0])
        axis.set(xlabel="epoch of the pretraining", ylabel=score)
    validation = table[f"val_{scores[0]}"]
    if validation.notna().any():
        best = table["epoch"][validation.idxmax()]
        axes[0].axvline(best, color="grey", linestyle=":", label=f"best: {best:g}")
    axes[0].legend()
    return figure


def draw_roc(predictions: pd.DataFrame, title: str, resamples: int = 0, seed: int = 0) -> Figure:
    """ROC and precision-recall curves, a line a label, and over several labels their mean.

    With `resamples` a band of their 95 % interval, by a bootstrap over the column subject_id.
    """
    figure, (left, right) = _panels(2, title)
    drawn = Resamples.of(predictions["subject_id"].to_numpy(), resamples, seed)
    of_row = pd.Series(drawn.subject, predictions.index)
    labels = {
        name: _ranked(part, of_row[part.index].to_numpy()) for name, part in _by_label(predictions).items()
    }
    _draw_lines(left, labels, _roc, "AUROC", drawn)
    _draw_lines(right, labels, _precision, "AUPRC", drawn)
    left.plot([0, 1], [0, 1], color="grey", linestyle=":")
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    right.set(xlabel="recall", ylabel="precision", ylim=(-0.05, 1.05))
    return figure


def draw_calibration(predictions: pd.DataFrame, title: str) -> Figure:
    """Share of positives against mean probability in ten equal bins, a line a label; and how many fall there.

    Over several labels, the bold line is of all their predictions together.
    """
    figure, (left, right) = _panels(2, title)
    parts = _by_label(predictions)
    many = len(parts) > 1
    for name, part in parts.items():
        left.plot(*_reliability(part), label=name if len(parts) <= MANY else None, **_thin(many))
    if many:
        left.plot(*_reliability(predictions), color="black", marker=".", label="all labels")
    left.plot([0, 1], [0, 1], color="grey", linestyle=":")
    left.set(xlabel="mean probability", ylabel="share of positives")
    left.legend()
    right.hist(predictions["probability"], bins=metrics.CALIBRATION_BINS, range=(0, 1), color="grey")
    right.set(xlabel="probability", ylabel="predictions", yscale="log")
    return figure


def draw_bars(scores: pd.DataFrame, metric: str, title: str) -> Figure:
    """A bar for each label and run, with its interval where there is one.

    `scores` has the columns run, label, value, low, high, one row for each run and label.
    """
    labels, runs = _in_order(scores["label"]), _in_order(scores["run"])
    height = 0.13 * len(labels) * (len(runs) + 1) + 0.25 * len(runs) + 1.5
    figure, (axis,) = _panels(1, title, width=5 + _inches(labels), height=height)
    thickness, colors = 0.8 / len(runs), _colors(len(runs))
    for number, run in enumerate(runs):
        found = scores[scores["run"] == run].set_index("label").reindex(labels)
        place = np.arange(len(labels)) + (number - (len(runs) - 1) / 2) * thickness
        axis.barh(place, found["value"], thickness, label=run, color=colors[number])
        reach = np.stack([found["value"] - found["low"], found["high"] - found["value"]]).astype(float)
        known = np.isfinite(reach).all(axis=0)
        wide = np.maximum(reach[:, known], 0)
        axis.errorbar(found["value"][known], place[known], xerr=wide, fmt="none", ecolor="black", capsize=2)
    axis.set_yticks(np.arange(len(labels)), labels, fontsize=SMALL_TEXT)
    axis.set(xlabel=metric, ylim=(len(labels) - 0.4, -0.6))
    figure.legend(loc="outside lower right", fontsize=SMALL_TEXT)
    return figure


def draw_heat(scores: pd.DataFrame, metric: str, title: str) -> Figure:
    """A cell for each label (row) and run (column), its score by colour and in figures; as draw_bars."""
    labels, runs = _in_order(scores["label"]), _in_order(scores["run"])
    table = scores.pivot(index="label", columns="run", values="value").reindex(index=labels, columns=runs)
    values = table.to_numpy(float)
    size = (0.6 * len(runs) + 2 + _inches(labels), 0.25 * len(labels) + 1 + _inches(runs))
    figure, (axis,) = _panels(1, title, width=size[0], height=size[1])
    image = axis.imshow(values, aspect="auto", cmap="viridis")
    middle = np.mean(image.get_clim())
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if value < middle else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=SMALL_TEXT)
    axis.set_xticks(np.arange(len(runs)), runs, rotation=90, fontsize=SMALL_TEXT)
    axis.set_yticks(np.arange(len(labels)), labels, fontsize=SMALL_TEXT)
    figure.colorbar(image, label=metric)
    return figure


class Map(NamedTuple):
    """Points [n, 2] with a title, and the label of each [n], NaN where unknown; None: they have none."""

    title: str
    points: np.ndarray
    labels: np.ndarray | None


def draw_maps(maps: Sequence[Map], axes_named: Sequence[str], title: str) -> Figure:
    """A panel a map, its points coloured by their labels."""
    figure, axes = _panels(len(maps), title, width=6.0 * len(maps), height=5)
    for axis, one in zip(axes, maps, strict=True):
        groups = [("", np.ones(len(one.points), bool))] if one.labels is None else _groups(one.labels)
        for name, members in groups:
            x, y = one.points[members].T
            axis.scatter(x, y, s=6, alpha=0.6, label=name or None)
        if one.labels is not None:
            axis.legend(markerscale=2)
        axis.set_title(one.title, fontsize=SMALL_TEXT)
        axis.set(xlabel=axes_named[0], ylabel=axes_named[1])
    return figure


def principal_components(embeddings: np.ndarray) -> np.ndarray:
    """[n, D] -> [n, 2]: the projections on the two directions of largest variance.

    A direction's sign is free; here its largest entry is positive.

    >>> principal_components(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])).round(6).tolist()
    [[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]
    """
    centred = embeddings - embeddings.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
    projections: np.ndarray = centred @ (directions * np.sign(largest)[:, None]).T
    return projections


def neighbour_map(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """[n, D] -> [n, 2] by t-SNE, from the main components on."""
    from sklearn.manifold import TSNE  # a second's import that no other figure needs

    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    places: np.ndarray = tsne.fit_transform(embeddings)
    return places


def _curves_of(config: PlotsConfig) -> tuple[Figure, Path]:
    log = _read(config.source / "log.csv", ("epoch",))
    return draw_curves(log, _title(config.source)), config.source / "curves.png"


def _epochs_of(config: PlotsConfig) -> tuple[Figure, Path]:
    table, path = _read(config.source, ("epoch",)), config.source
    if not any(name.startswith("val_") for name in table):
        raise ValueError(
            f"{path} has no column val_...; give a results_label_<task>.csv of epoch_evaluation.py"
        )
    told = path.with_suffix(".yaml")
    data = _data_of(told) if told.is_file() else _data_of(path.parent / "environment.yaml")
    title = "\n".join(filter(None, [f"{path.resolve().parent.name}: {path.stem}", data]))
    return draw_epochs(table.sort_values("epoch", ignore_index=True), title), path.with_suffix(".png")


def _roc_of(config: PlotsConfig) -> tuple[Figure, Path]:
    title = _title(config.source, f", {config.split}")
    table = _predictions(config)
    stays = table["stay_id"].to_numpy()
    subjects = subjects_of(stays, config.source, config.store) if config.resamples else stays
    figure = draw_roc(table.assign(subject_id=subjects), title, config.resamples, config.seed)
    return figure, config.source / f"roc_{config.split}.png"


def _calibration_of(config: PlotsConfig) -> tuple[Figure, Path]:
    title = _title(config.source, f", {config.split}")
    return draw_calibration(_predictions(config), title), config.source / f"calibration_{config.split}.png"


def _bars_of(config: PlotsConfig) -> tuple[Figure, Path]:
    scores, title = _scores(config)
    return draw_bars(scores, config.metric, title), _beside(config.source, f"bars_{config.metric}")


def _heat_of(config: PlotsConfig) -> tuple[Figure, Path]:
    scores, title = _scores(config)
    return draw_heat(scores, config.metric, title), _beside(config.source, f"heat_{config.metric}")


def _map_of(config: PlotsConfig) -> tuple[Figure, Path]:
    given = [path for path in (config.before, config.source) if path is not None]
    sources = [path / EMBEDDINGS if path.is_dir() else path for path in given]
    maps = [_map(source, config) for source in sources]
    names = ("t-SNE 1", "t-SNE 2") if config.tsne else ("first component", "second component")
    end = f", {', '.join(config.label)}" if config.label else ""
    figure = draw_maps(maps, names, _title(config.source, end))
    return figure, _beside(sources[-1], "tsne" if config.tsne else "pca")


def _map(source: Path, config: PlotsConfig) -> Map:
    embeddings, labels = _embeddings(source, config.label)
    chosen = np.arange(len(embeddings))
    if config.tsne:
        chosen = np.sort(np.random.default_rng(config.seed).permutation(len(embeddings))[:POINTS])
        points = neighbour_map(embeddings[chosen], config.seed)
    else:
        points = principal_components(embeddings)
    name = source.resolve().parent.name if source.name == EMBEDDINGS else source.stem
    title = f"{name}: {len(chosen)} of {len(embeddings)} samples"
    return Map(title, points, None if labels is None else labels[chosen])


DRAWINGS: dict[str, Callable[[PlotsConfig], tuple[Figure, Path]]] = {
    "curves": _curves_of,
    "epochs": _epochs_of,
    "roc": _roc_of,
    "calibration": _calibration_of,
    "bars": _bars_of,
    "heat": _heat_of,
    "map": _map_of,
}


def _panels(count: int, title: str, width: float = 0.0, height: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes, three a row; of `width` and `height` in inches, else by the axes."""
    columns, rows = min(count, 3), math.ceil(count / 3)
    size = (width or PANEL[0] * columns, height or PANEL[1] * rows + 0.4)
    figure = Figure(size, layout="constrained")
    figure.suptitle(title)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def _inches(names: Sequence[str]) -> float:
    """Room for the longest of some names in small text."""
    return 0.07 * max(map(len, names))


def _colors(count: int) -> np.ndarray:
    """[count, 4] colours that differ: some of the usual ten, or as many as are asked for of a rainbow.

    >>> [len({tuple(color) for color in _colors(count)}) for count in (3, 10, 30)]
    [3, 10, 30]
    """
    if count <= 10:
        return np.asarray(colormaps["tab10"](np.arange(count)))
    return np.asarray(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


class _Stroke(TypedDict, total=False):
    """How a line is drawn."""

    linewidth: float
    alpha: float


def _thin(thin: bool) -> _Stroke:
    return {"linewidth": 0.8, "alpha": 0.6} if thin else {"linewidth": 1.8}


class _Ranked(NamedTuple):
    """The samples of a label, from the largest probability on; `last` is the end of each run of equal ones.

    truth, subject [n]: which of the subjects a sample is of; areas: {name: value}, NaN for one class.
    """

    truth: np.ndarray
    subject: np.ndarray
    last: np.ndarray
    areas: dict[str, float]


class _Curve(NamedTuple):
    """A curve through (x, y); y of a step function holds from the x before."""

    x: np.ndarray
    y: np.ndarray
    steps: bool

    def at(self, grid: np.ndarray) -> np.ndarray:
        """Its height at points of the x axis."""
        next_point = np.minimum(np.searchsorted(self.x, grid), len(self.y) - 1)
        heights: np.ndarray = self.y[next_point] if self.steps else np.interp(grid, self.x, self.y)
        return heights


def _ranked(part: pd.DataFrame, subject: np.ndarray) -> _Ranked:
    order = np.argsort(-part["probability"].to_numpy(float), kind="stable")
    truth, probability = part["truth"].to_numpy(float)[order], part["probability"].to_numpy(float)[order]
    last = np.r_[np.flatnonzero(np.diff(probability)), len(part) - 1]
    areas = {"AUROC": metrics.auroc(truth, probability), "AUPRC": metrics.auprc(truth, probability)}
    return _Ranked(truth, subject[order], last, areas)


def _roc(ranked: _Ranked, weight: np.ndarray) -> _Curve | None:
    """True over false positive rates, every sample counted `weight` [n] times; None if one class is left."""
    hits, misses = np.cumsum(weight * ranked.truth), np.cumsum(weight * (1 - ranked.truth))
    if not (hits[-1] and misses[-1]):
        return None
    x, y = misses[ranked.last] / misses[-1], hits[ranked.last] / hits[-1]
    return _Curve(np.r_[0, x], np.r_[0, y], steps=False)


def _precision(ranked: _Ranked, weight: np.ndarray) -> _Curve | None:
    """Precision over recall, as `_roc`; its area is the average precision."""
    hits, all_of_them = np.cumsum(weight * ranked.truth)[ranked.last], np.cumsum(weight)[ranked.last]
    if not 0 < hits[-1] < all_of_them[-1]:
        return None
    seen = all_of_them > 0
    recall, precision = hits[seen] / hits[-1], hits[seen] / all_of_them[seen]
    return _Curve(np.r_[0, recall], np.r_[precision[0], precision], steps=True)


Way = Callable[[_Ranked, np.ndarray], _Curve | None]


def _draw_lines(axis: Axes, labels: Mapping[str, _Ranked], way: Way, area: str, resamples: Resamples) -> None:
    """A line a label, and the mean of several with the band of its 95 % interval; else that of the one."""
    kept = {name: ranked for name, ranked in labels.items() if not math.isnan(ranked.areas[area])}
    if not kept:
        raise ValueError("every label has one class here, so that none has a curve; choose another --split")
    for name, ranked in kept.items():
        curve = way(ranked, np.ones(len(ranked.truth)))
        assert curve is not None, "a label with an area has both classes"
        told = f"{name}: {area} {ranked.areas[area]:.3f}" if len(kept) <= MANY else None
        style = "steps-pre" if curve.steps else "default"
        axis.plot(curve.x, curve.y, label=told, drawstyle=style, **_thin(len(kept) > 1))
    if len(kept) > 1:
        value = np.mean([ranked.areas[area] for ranked in kept.values()])
        told = f"mean of {len(kept)} labels: {area} {value:.3f}"
        axis.plot(GRID, _mean(kept, way, None), color="black", label=told)
    if resamples.count:
        heights = [_mean(kept, way, resamples.counts(range(r, r + 1))[0]) for r in range(resamples.count)]
        low, high = np.nanpercentile(heights, (2.5, 97.5), axis=0)
        axis.fill_between(GRID, low, high, color="black", alpha=0.2, linewidth=0, label="95 % band, by stay")
    left_out = len(labels) - len(kept)
    axis.set_title(f"{left_out} labels of one class left out" if left_out else "", fontsize=SMALL_TEXT)
    axis.legend(fontsize=8)


def _mean(labels: Mapping[str, _Ranked], way: Way, counts: np.ndarray | None) -> np.ndarray:
    """Mean height [101] of the labels' curves, each subject counted as often as `counts` says, else once."""
    weights = {name: 1.0 if counts is None else counts[r.subject] for name, r in labels.items()}
    curves = [way(r, np.broadcast_to(weights[name], r.truth.shape)) for name, r in labels.items()]
    heights = [curve.at(GRID) for curve in curves if curve is not None]
    return np.mean(heights, axis=0) if heights else np.full(len(GRID), np.nan)


def _reliability(part: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Mean probability and share of positives of each bin that has any."""
    place = (
        (part["probability"] * metrics.CALIBRATION_BINS).astype(int).clip(upper=metrics.CALIBRATION_BINS - 1)
    )
    means = part.groupby(place)[["probability", "truth"]].mean()
    return means["probability"], means["truth"]


def _by_label(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return dict(iter(predictions.groupby("label", sort=False)))


def _in_order(names: pd.Series) -> list[str]:
    return list(dict.fromkeys(names))


def _groups(labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Each value of labels [n] and who has it, the unknown last.

    >>> [(name, who.tolist()) for name, who in _groups(np.array([1.0, np.nan, 1.0]))]
    [('1', [True, False, True]), ('unknown', [False, True, False])]
    """
    number, unknown = np.issubdtype(labels.dtype, np.number), labels != labels
    groups = [(f"{v:g}" if number else str(v), labels == v) for v in np.unique(labels[~unknown])]
    return groups + ([("unknown", unknown)] if unknown.any() else [])


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table with rows and at least these columns; ValueError if it is missing or another."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give the folder or table of a run that has ended")
    try:
        table = read_rows(path)
    except (ValueError, UnicodeDecodeError):
        raise ValueError(f"{path} is not a table; give a CSV file that a run has written") from None
    if table.empty:
        raise ValueError(f"{path} has no row yet; wait for the first")
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}; give the table that the figure is about"
        )
    return table


def _predictions(config: PlotsConfig) -> pd.DataFrame:
    """Known labels and their probabilities, of the labels asked for."""
    path = config.source / f"predictions_{config.split}.csv"
    table = _chosen(_read(path, PREDICTIONS), "label", config.label, path).dropna(subset=["truth"])
    if table.empty:
        raise ValueError(f"{path}: every label is unknown; choose another --split")
    return table


def _scores(config: PlotsConfig) -> tuple[pd.DataFrame, str]:
    """The latest row of each run and label, and the title."""
    path = config.source
    table = _read(path, COLUMNS)
    for name in ("split", "metric"):
        table = _chosen(table, name, (getattr(config, name),), path)
    table = _chosen(_chosen(table, "run", config.run, path), "label", config.label, path)
    table = table.drop_duplicates(["run", "label"], keep="last")
    data = {_data_of(config.save_dir / run / "environment.yaml") for run in table["run"]} - {""}
    return table, "\n".join([f"{path.stem}: {config.metric}, {config.split}", *sorted(data)])


def _chosen(table: pd.DataFrame, column: str, values: Sequence[str], path: Path) -> pd.DataFrame:
    """The rows with these values, all if there are none; ValueError if a value is in no row."""
    there = _in_order(table[column].astype(str))
    unknown = [value for value in values if value not in there]
    if unknown:
        held = ", ".join(there)
        raise ValueError(f"{path} has no {column} {', '.join(unknown)}; choose --{column} from {held}")
    return table[table[column].astype(str).isin(values)] if values else table


def _embeddings(path: Path, label: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """`embeddings` [n, D] and `labels` [n], if there are any, of an .npz; ValueError if they do not fit.

    Of labels [n, L] with `names` [L], as run_gpu.py writes them, those of the name in `label`.
    """
    rule = (
        f"{path} must be an .npz with embeddings [n, D], n and D 2 or more, and labels [n] if there are any"
    )
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; run_gpu.py --protocol lineareval writes it")
    try:
        with np.load(path, allow_pickle=False) as file:
            embeddings, labels, names = file["embeddings"], file.get("labels"), file.get("names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{rule}; write it by numpy.savez") from None
    if (
        embeddings.ndim != 2
        or min(embeddings.shape) < 2
        or (labels is not None and len(labels) != len(embeddings))
    ):
        shapes = embeddings.shape if labels is None else (embeddings.shape, labels.shape)
        raise ValueError(f"{rule}; it has {shapes}")
    if not np.isfinite(embeddings).all():
        raise ValueError(
            f"{path}: {(~np.isfinite(embeddings)).sum()} numbers are not finite; leave those rows out"
        )
    return embeddings, labels if names is None else _column(labels, names.tolist(), label, path)


def _column(labels: np.ndarray, names: list[str], label: Sequence[str], path: Path) -> np.ndarray:
    """The labels [n] of the one name that is asked for, or of the only one; ValueError for another."""
    wanted = list(label) or (names if len(names) == 1 else [])
    if len(wanted) != 1 or wanted[0] not in names:
        raise ValueError(f"{path}: a map is coloured by one label; choose --label from {', '.join(names)}")
    return labels[:, names.index(wanted[0])]


def _title(source: Path, end: str = "") -> str:
    """The run's name, or the file's, with `end`; and what the data are, if the run says so."""
    folder = source if source.is_dir() else source.parent
    name = source.resolve().name if source.is_dir() else source.stem
    return "\n".join(filter(None, [name + end, _data_of(folder / "environment.yaml")]))


def _data_of(path: Path) -> str:
    """What a run's record says of its data, such as "synthetic data"; "" if it says nothing."""
    if not path.is_file():
        return ""
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    return str(told.get("data") or "") if isinstance(told, dict) else ""


def _beside(source: Path, end: str) -> Path:
    return source.with_name(f"{source.stem}_{end}.png")


if __name__ == "__main__":
    run_cli(main, PlotsConfig)
