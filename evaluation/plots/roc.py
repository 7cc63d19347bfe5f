"""ROC and precision-recall curves, with bands from a bootstrap over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.bootstrap import Resamples
from evaluation.plots.figures import MAX_NAMED_LINES, SMALL_TEXT, PredictionSelection, line_style, make_panels
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
        curve_sets = [compute_curves(name, predictions, draws) for name in CURVES]
        return draw_roc(curve_sets, self.title()), self.source / f"roc_{self.split}.png"


def draw_roc(curve_sets: Sequence[CurveSet], title: str) -> Figure:
    """Draw ROC curves on the left and precision-recall curves on the right."""
    figure, (left, right) = make_panels(2, title)
    _draw_curves(left, curve_sets[0], "default")
    _draw_curves(right, curve_sets[1], "steps-pre")
    left.plot([0, 1], [0, 1], color="grey", linestyle=":")
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    right.set(xlabel="recall", ylabel="precision", ylim=(-0.05, 1.05))
    return figure


def _draw_curves(axis: Axes, curves: CurveSet, drawstyle: str) -> None:
    count, name = len(curves.curves), curves.area_name
    for label, (x, y) in curves.curves.items():
        text = f"{label}: {name} {curves.areas[label]:.3f}" if count <= MAX_NAMED_LINES else None
        axis.plot(x, y, label=text, drawstyle=drawstyle, **line_style(one_of_many=count > 1))
    if count > 1:
        area = np.mean(list(curves.areas.values()))
        axis.plot(GRID, curves.mean, color="black", label=f"mean of {count} labels: {name} {area:.3f}")
    if curves.band is not None:
        low, high = curves.band
        label = f"95 % band of the {'mean' if count > 1 else 'curve'}, over subjects"
        axis.fill_between(GRID, low, high, color="black", alpha=0.2, linewidth=0, label=label)
    if curves.excluded:
        axis.set_title(f"without {curves.excluded} labels that have one class", fontsize=SMALL_TEXT)
    axis.legend(fontsize=SMALL_TEXT)
