"""Compare two runs on the same samples: the difference of each score, its interval and its p value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resampled, Resamples
from evaluation.metrics import Score
from evaluation.predictions import Predictions, read_predictions, to_arrays

SAMPLE_COLUMNS = ("stay_id", "subject_id", "end_hours", "label", "truth")  # equal in two runs to compare


@dataclass(frozen=True)
class Compare:
    """Compare the predictions of two runs by a paired bootstrap over subjects."""

    run_a: tyro.conf.Positional[Path]
    """Folder of a run, with its predictions_<split>.csv."""
    run_b: tyro.conf.Positional[Path]
    """Folder of the run to compare it with."""
    split: str = "test"
    """Split whose predictions are compared."""
    labels: bool = False
    """Also compare each label."""
    resamples: int = 1000
    """Resamples of the subjects."""
    seed: int = 0
    """Seed of the resamples."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: there is no resample.
        """
        if self.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, not {self.resamples}")


def compare(config: Compare) -> pd.DataFrame:
    """Return a row per score: label, metric, a, b, difference (b - a), its 95 % interval low and high, p, n.

    Raises:
        ValueError: the runs are on different samples.
    """
    a, b = _read_pair(
        *(Path(run) / f"predictions_{config.split}.csv" for run in (config.run_a, config.run_b))
    )
    resamples = Resamples.of(a.subject_id, config.resamples, config.seed)
    scores_a, resampled_a = _evaluate(a, resamples)
    scores_b, resampled_b = _evaluate(b, resamples)
    rows = []
    for score_a, score_b in zip(scores_a, scores_b, strict=True):
        key = score_a["label"], score_a["metric"]
        if not config.labels and score_a["label"] != "macro":
            continue
        differences = resampled_b[key] - resampled_a[key]
        low, high = bootstrap.interval(differences)
        difference = score_b["value"] - score_a["value"]
        p = p_value(differences)
        rows.append((*key, score_a["value"], score_b["value"], difference, low, high, p, score_a["n"]))
    columns = ("label", "metric", "a", "b", "difference", "low", "high", "p", "n")
    return pd.DataFrame(rows, columns=columns)


def p_value(differences: np.ndarray) -> float:
    """Return the two-sided p value of the hypothesis that two scores are equal.

    It is twice the share of resamples in which the difference [R] has the other sign or is 0, ignoring NaN;
    never below 2 / (R + 1), and NaN if R is 0.

    >>> p_value(np.array([0.1, 0.2, 0.3])), p_value(np.array([-0.1, 0.2, 0.3, 0.4, 0.5]))
    (0.5, 0.6666666666666666)
    """
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return np.nan
    fewer = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, float(2 * (fewer + 1) / (len(differences) + 1)))


def _read_pair(path_a: Path, path_b: Path) -> tuple[Predictions, Predictions]:
    a, b = read_predictions(path_a), read_predictions(path_b)
    if len(a) != len(b):
        difference = f"{len(a)} and {len(b)} rows"
    else:
        difference = ", ".join(name for name in SAMPLE_COLUMNS if not a[name].equals(b[name]))
    if difference:
        raise ValueError(
            f"{path_a} and {path_b} are of different samples ({difference}); "
            "evaluate both with the same --task, --store, --data_pairs and --retrieve_cxr"
        )
    return to_arrays(a, path_a), to_arrays(b, path_b)


def _evaluate(predictions: Predictions, resamples: Resamples) -> tuple[list[Score], Resampled]:
    kind, labels, _, truth, probability = predictions
    scores = metrics.evaluate(kind, labels, {}, truth, probability)
    return scores, bootstrap.evaluate(kind, labels, {}, truth, probability, resamples)


def print_comparison(config: Compare) -> None:
    """Print the comparison."""
    table = compare(config)
    print(f"a: {config.run_a}\nb: {config.run_b}\n{config.split}, {config.resamples} resamples of subjects")
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
