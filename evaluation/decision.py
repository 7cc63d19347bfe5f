"""Decision curves, the net benefit of acting on predictions: `python -m evaluation.decision RUN`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro

from evaluation import bootstrap
from evaluation.bootstrap import Resamples
from evaluation.metrics import quotient
from evaluation.plots.decision import Decision
from evaluation.plots.palette import Format
from evaluation.plots.style import save
from evaluation.predictions import LabelledScores, by_label
from utils.cli import run_cli
from utils.files import atomic_write

GRID = np.arange(1, 100) / 100  # probabilities above which one would act
MEAN = "macro"  # mean over labels


@dataclass(frozen=True)
class DecisionConfig:
    """Compute the net benefit of acting where a prediction is at or above a threshold (Vickers & Elkin 2006).

    It is compared with acting for all patients and for none, whose net benefit is 0. Writes
    decision_<split>.csv and a picture of it into the folder of the run.
    """

    run: tyro.conf.Positional[Path]
    """Folder of a run of run_gpu.py, with its predictions."""
    split: str = "test"
    """Split that is scored."""
    label: tuple[str, ...] = ()
    """Only these labels; all if none is given."""
    calibration: Literal["none", "temperature", "isotonic"] = "none"
    """Which probabilities are used: those of the model, or calibrated ones."""
    resamples: int = 1000
    """Resamples of the subjects for the 95 % intervals."""
    seed: int = 0
    """Seed of the resamples."""
    format: Format = "png"
    """Format of the picture; pdf and svg are sharp at any size, as publishers ask for."""

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, not {self.resamples}")


@dataclass(frozen=True, eq=False)
class Benefit:
    """Net benefits at T thresholds: of the predictions, and of acting for all; [T], in resamples [R, T]."""

    model: np.ndarray
    everyone: np.ndarray
    n: int
    positives: int


def net_benefit(hits: np.ndarray, false_alarms: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return (hits - false alarms * odds of the threshold) / n, all [..., T] on GRID."""
    return quotient(hits - false_alarms * GRID / (1 - GRID), np.broadcast_to(n, np.shape(hits)))


def benefits(scores: LabelledScores, label: int, resamples: Resamples) -> tuple[Benefit, Benefit]:
    """Return the net benefits of one label, and those in every resample."""
    sample = np.flatnonzero(~np.isnan(scores.truth[:, label]))
    is_positive = scores.truth[sample, label] == 1
    reached = np.searchsorted(GRID, scores.probability[sample, label], side="right")  # thresholds met
    width = len(GRID) + 1
    column = width * is_positive + reached
    whole = np.bincount(column, minlength=2 * width)[None]
    drawn = bootstrap.totals(resamples, sample, column, np.ones(len(sample)), 2 * width)
    of_split, of_resamples = (_benefit(tables.reshape(-1, 2, width)) for tables in (whole, drawn))
    return Benefit(of_split.model[0], of_split.everyone[0], of_split.n, of_split.positives), of_resamples


def _benefit(tables: np.ndarray) -> Benefit:
    """Return net benefits of counts [B, 2, T + 1] of negatives and positives, by the thresholds they meet."""
    false_alarms, hits = np.moveaxis(tables[..., ::-1].cumsum(-1)[..., ::-1][..., 1:], 1, 0)
    negatives, positives = np.moveaxis(tables.sum(-1), 1, 0)
    n = (negatives + positives)[:, None]
    everyone = net_benefit(*np.broadcast_arrays(positives[:, None], negatives[:, None], n, GRID)[:3])
    return Benefit(net_benefit(hits, false_alarms, n), everyone, int(n[0, 0]), int(positives[0]))


def rows(scores: LabelledScores, resamples: Resamples) -> Iterator[dict[str, object]]:
    """Yield a row for each label and threshold, then those of the mean over labels, if there are several."""
    parts = {name: benefits(scores, i, resamples) for i, name in enumerate(scores.labels)}
    known = {name: part for name, part in parts.items() if part[0].n}
    for name, part in known.items():
        yield from _label_rows(name, *part, resamples.subjects)
    if len(known) > 1:
        whole, drawn = (_mean(parts) for parts in zip(*known.values(), strict=True))
        yield from _label_rows(MEAN, whole, drawn, resamples.subjects)


def _mean(parts: tuple[Benefit, ...]) -> Benefit:
    model, everyone = (
        np.mean([getattr(part, name) for part in parts], axis=0) for name in ("model", "everyone")
    )
    return Benefit(model, everyone, sum(part.n for part in parts), sum(part.positives for part in parts))


def _label_rows(label: str, whole: Benefit, drawn: Benefit, subjects: int) -> Iterator[dict[str, object]]:
    for index, threshold in enumerate(GRID):
        row: dict[str, object] = {"label": label, "threshold": threshold, "treat_all": whole.everyone[index]}
        for name, value, resampled in (
            ("net_benefit", whole.model, drawn.model),
            ("over_treat_all", whole.model - whole.everyone, drawn.model - drawn.everyone),
        ):
            low, high = bootstrap.interval(value[index], resampled[:, index], subjects)
            row |= {name: value[index], f"{name}_low": low, f"{name}_high": high}
        yield row | {"n": whole.n, "positives": whole.positives}


def main(config: DecisionConfig) -> None:
    """Write the table and the picture."""
    scores = by_label(config.run, config.split, config.label, config.calibration)
    resamples = Resamples.of(scores.subject_id, config.resamples, config.seed)
    table = pd.DataFrame(rows(scores, resamples))
    if table.empty:
        raise ValueError(f"{config.run}: every label of {config.split} is unknown; choose another --split")
    name = f"decision_{config.split}" + ("" if config.calibration == "none" else f"_{config.calibration}")
    path = config.run / f"{name}.csv"
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False)
    figure, picture = Decision(path).draw()
    picture = picture.with_suffix(f".{config.format}")
    save(figure, picture)
    print(f"{path}\n{picture}")


if __name__ == "__main__":
    run_cli(main, DecisionConfig)
