"""ROC and precision-recall curves, with bands from a bootstrap over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.bootstrap import Resamples
from evaluation.plots.figures import MAX_NAMED_LINES, PredictionSelection, line_style, make_panels
from evaluation.plots.palette import BLACK, GREY
from evaluation.plots.style import SMALL_TEXT, legend_below, wrap
from evaluation.roc_curves import CURVES, GRID, CurveSet, compute_curves


@dataclass(frozen=True)
class Roc(PredictionSelection):
    """Plot ROC and precision-recall curves of a run, a line per label and the mean over labels."""

    resamples: int = 200
    """Resamples of the subjects for the 95 % band around the curve; 0 for no band."""
    seed: int = 0
    """Seed of the resamples."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        predictions = self.read()
        draws = Resamples.of(predictions["subject_id"].to_numpy(), self.resamples, self.seed)
        titled = predictions.assign(label=predictions["label"].map(self.titles(predictions)))
        curve_sets = [compute_curves(name, titled, draws) for name in CURVES]
        return draw_roc(curve_sets, self.title()), self.source / f"roc_{self.split}.png"


def draw_roc(curve_sets: Sequence[CurveSet], title: str) -> Figure:
    """Draw ROC curves on the left and precision-recall curves on the right."""
    named = [wrap(name, 50) for name in curve_sets[0].curves] if is_named(curve_sets[0]) else []
    lines = sum(len(name.splitlines()) for name in named) + 3
    figure, (left, right) = make_panels(2, title, legend_lines=lines)
    _draw_curves(left, curve_sets[0], "default")
    _draw_curves(right, curve_sets[1], "steps-pre")
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance: AUROC 0.500")
    left.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)")
    right.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)", ylim=(-0.05, 1.05))
    for axis in (left, right):
        legend_below(axis)
    return figure


def is_named(curves: CurveSet) -> bool:
    """Return whether a legend has room for the name of each label."""
    return len(curves.curves) <= MAX_NAMED_LINES


def _draw_curves(axis: Axes, curves: CurveSet, drawstyle: str) -> None:
    count, name = len(curves.curves), curves.area_name
    for number, (label, (x, y)) in enumerate(curves.curves.items()):
        text = wrap(f"{label}: {name} {curves.areas[label]:.3f}", 50)
        if not is_named(curves):
            text = "" if number else "each label"
        axis.plot(x, y, label=text or None, drawstyle=drawstyle, **line_style(count))
    if count > 1:
        area = np.mean(list(curves.areas.values()))
        axis.plot(GRID, curves.mean, "-", color=BLACK, label=f"mean of {count} labels: {name} {area:.3f}")
    if curves.band is not None:
        low, high = curves.band
        label = f"95 % band of the {'mean' if count > 1 else 'curve'}, over subjects"
        axis.fill_between(GRID, low, high, color=BLACK, alpha=0.2, linewidth=0, label=label)
    if curves.excluded:
        axis.set_title(f"without {curves.excluded} labels that have one class", fontsize=SMALL_TEXT)
