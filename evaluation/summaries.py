"""A summary of a split's predictions, for comparisons and pictures of many runs: no row is of one stay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from evaluation import bootstrap
from evaluation.bootstrap import Resampled, Resamples
from evaluation.metrics import CALIBRATION_BINS, calibration_bin
from evaluation.predictions import read_predictions, to_arrays
from evaluation.roc_curves import CURVES, compute_curves
from utils.files import atomic_write
from utils.lazy_pandas import pd

RESAMPLE_SEED = 0  # of the bootstrap of every run, so that the resamples of all runs draw the same subjects


@dataclass(frozen=True, eq=False)
class Summary:
    """What the predictions of a split come to.

    `samples` is a hash of stays, subjects, times, labels and truth: runs with the same one are of the same
    samples, and their scores in each resample [R] are paired. `resampled` has the mean over labels of each
    metric, and `subjects` says how many decide it (`bootstrap.Subjects`). `reliability` has, of all labels
    together, for each of ten bins of the probability, the number of predictions, the sum of their
    probabilities and the number of positives, [10, 3]. `curves` has the mean ROC ("AUROC") and
    precision-recall curve ("AUPRC") over labels, at 101 points from 0 to 1; it is empty if no label has both
    classes.
    """

    samples: str
    resampled: Mapping[str, np.ndarray]
    subjects: int
    reliability: np.ndarray
    curves: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, predictions: pd.DataFrame, resampled: Resampled, subjects: int) -> Self:
        """Summarize predictions, and their scores in each resample with RESAMPLE_SEED."""
        means = {metric: values for (label, metric), values in resampled.items() if label == "macro"}
        known = predictions.dropna(subset=["truth"])
        known = known.assign(truth=known["truth"].astype(int), label=known["label"].astype(str))
        bins = calibration_bin(known["probability"].to_numpy())
        columns = (None, known["probability"], known["truth"])
        sums = [np.bincount(bins, column, CALIBRATION_BINS) for column in columns]
        reliability = np.stack(sums, axis=1)
        return cls(_hash_samples(predictions), means, subjects, reliability, _mean_curves(known))

    @classmethod
    def of_predictions(cls, path: Path, resamples: int) -> Self:
        """Summarize a file of predictions, which takes longer than reading a summary.

        Raises:
            ValueError: It is missing, cut, or no table of predictions.
        """
        table = read_predictions(path)
        kind, labels, subject_id, truth, probability = to_arrays(table, path)
        draws = Resamples.of(subject_id, resamples, RESAMPLE_SEED)
        resampled = bootstrap.evaluate(kind, labels, {}, truth, probability, draws)
        subjects = bootstrap.subjects_of(kind, labels, {}, truth, subject_id)
        return cls.of(table, resampled, subjects["macro"].deciding)

    def write(self, path: Path) -> None:
        """Write the arrays as .npz, atomically."""
        arrays = {"samples": np.array(self.samples), "subjects": np.array(self.subjects)}
        arrays["reliability"] = self.reliability
        arrays |= {f"resampled_{metric}": values for metric, values in self.resampled.items()}
        arrays |= {f"curve_{name}": heights for name, heights in self.curves.items()}
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stubs take a keyword for allow_pickle

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ValueError: It is damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            samples, subjects = str(arrays.pop("samples")), int(arrays.pop("subjects"))
            reliability = arrays.pop("reliability")
        except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
            raise ValueError(
                f"{path} is no summary of predictions ({error}); evaluate the run again"
            ) from None
        parts: dict[str, dict[str, np.ndarray]] = {"resampled": {}, "curve": {}}
        for name, array in arrays.items():
            part, _, key = name.partition("_")
            parts.setdefault(part, {})[key] = array
        return cls(samples, parts["resampled"], subjects, reliability, parts["curve"])


def summary_path(predictions: Path) -> Path:
    """Return where the summary of a file of predictions lies.

    >>> summary_path(Path("runs/mine/predictions_test.csv")).as_posix()
    'runs/mine/summary_test.npz'
    """
    return predictions.with_name(f"summary_{predictions.stem.removeprefix('predictions_')}.npz")


def _hash_samples(predictions: pd.DataFrame) -> str:
    found = hashlib.sha256("\0".join(predictions["label"].unique()).encode())
    for name, kind in (("stay_id", np.int64), ("subject_id", np.int64), ("end_hours", np.float64)):
        found.update(predictions[name].to_numpy(kind).tobytes())
    found.update(predictions["truth"].to_numpy(np.float32, na_value=np.nan).tobytes())
    return found.hexdigest()


def _mean_curves(known: pd.DataFrame) -> dict[str, np.ndarray]:
    classes = known.groupby("label", sort=False)["truth"].nunique()
    if not (classes == 2).any():
        return {}
    draws = Resamples.of(known["subject_id"].to_numpy(), 0, RESAMPLE_SEED)
    return {name: compute_curves(name, known, draws).mean for name in CURVES}
