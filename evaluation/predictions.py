"""Files with a row per sample: predictions of a split (CSV), and embeddings of the test samples (.npz)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.results import read_table
from utils.files import atomic_write
from utils.lazy_pandas import pd

if TYPE_CHECKING:  # the commands that read predictions need no torch
    from datasets.samples import Samples

COLUMNS = ("stay_id", "subject_id", "end_hours", "label", "truth", "probability")
HAS_XRAY = "has_xray"  # column of the predictions, 1 or 0
EMBEDDINGS = "embeddings_test.npz"
MAX_EMBEDDINGS = 3000  # samples that are kept: as many as one picture can show


class Predictions(NamedTuple):
    """The predictions of n samples."""

    kind: str  # "multilabel" or "ordinal"
    labels: tuple[str, ...]
    subject_id: np.ndarray  # [n]
    truth: np.ndarray  # [n, L], NaN if unknown
    probability: np.ndarray  # [n, L], or [n, K] of the K bins of an ordinal label


class LabelledScores(NamedTuple):
    """The predictions of n samples for L labels that are true or not; of an ordinal label each bin is one."""

    labels: tuple[str, ...]
    stay_id: np.ndarray  # [n]
    subject_id: np.ndarray  # [n]
    has_xray: np.ndarray  # bool [n]
    truth: np.ndarray  # [n, L], NaN if unknown
    probability: np.ndarray  # [n, L]

    def take_labels(self, index: Sequence[int]) -> LabelledScores:
        """Return the predictions of some of the labels."""
        kept = {name: getattr(self, name)[:, index] for name in ("truth", "probability")}
        return self._replace(labels=tuple(self.labels[i] for i in index), **kept)


def write_predictions(
    path: Path,
    samples: Samples,
    labels: Sequence[str],
    probability: np.ndarray,
    calibrated: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> pd.DataFrame:
    """Write probabilities [n, L] as CSV atomically, a row per sample and label; unknown truth is empty.

    Returns the table.

    An ordinal label, [n, K], becomes K labels "name[k]", with truth 1 for its bin and 0 for the others.
    `calibrated` holds further probabilities [n, L], each with the name of its column.
    """
    truth = samples.labels
    if truth.shape[1] == 1 and probability.shape[1] > 1:
        bins = probability.shape[1]
        labels = [f"{labels[0]}[{k}]" for k in range(bins)]
        truth = np.where(np.isnan(truth), np.nan, truth == np.arange(bins)).astype(np.float32)
    shape = (len(samples), len(labels))
    if not truth.shape == probability.shape == shape:
        raise ValueError(f"{path}: truth {truth.shape}, probability {probability.shape} must both be {shape}")
    table = pd.DataFrame(
        {
            "stay_id": np.repeat(samples.stay_id, len(labels)),
            "subject_id": np.repeat(samples.subject_id, len(labels)),
            "end_hours": np.repeat(samples.end_hours, len(labels)),
            "label": pd.Categorical.from_codes(np.tile(np.arange(shape[1]), shape[0]), list(labels)),
            "truth": pd.array(truth.ravel()).astype("Int8"),
            "probability": probability.ravel().astype(np.float64),  # scores are computed in float64
            HAS_XRAY: np.repeat(samples.cxr_row >= 0, len(labels)).astype(np.int8),
        }
        | {name: other.ravel() for name, other in calibrated.items()}
    )
    with atomic_write(Path(path)) as partial:
        table.to_csv(partial, index=False)
    return table


def read_predictions(path: Path) -> pd.DataFrame:
    """Return the table that `write_predictions` wrote."""
    return read_table(path, COLUMNS)


def check_labels(table: pd.DataFrame, path: Path) -> tuple[str, ...]:
    """Return the labels of a table of predictions; ValueError if some of a sample's are missing."""
    labels = tuple(dict.fromkeys(table["label"]))
    if len(table) % len(labels) or (table["label"].to_numpy().reshape(-1, len(labels)) != labels).any():
        raise ValueError(f"{path} does not have every label of each sample: it was cut; evaluate again")
    return labels


def by_sample(table: pd.DataFrame, column: str, labels: int) -> np.ndarray:
    """Return a column of numbers as [n, L], NaN where it is empty."""
    return np.asarray(table[column].to_numpy(np.float64, na_value=np.nan).reshape(-1, labels))


def by_label(run: Path, split: str, label: Sequence[str] = (), calibration: str = "none") -> LabelledScores:
    """Read the predictions of a run; `label` selects some of the labels, `calibration` the probabilities.

    Raises:
        ValueError: predictions, or columns of them, are missing, or a label is unknown.
    """
    path = run / f"predictions_{split}.csv"
    column = "probability" if calibration == "none" else calibration
    table = read_table(path, (*COLUMNS, HAS_XRAY, column))
    labels = check_labels(table, path)
    if unknown := [name for name in label if name not in labels]:
        choices = ", ".join(labels)
        raise ValueError(f"{path} has no label {', '.join(unknown)}; choose --label from {choices}")
    samples = table.iloc[:: len(labels)]
    scores = LabelledScores(
        labels,
        samples["stay_id"].to_numpy(),
        samples["subject_id"].to_numpy(),
        samples[HAS_XRAY].to_numpy() == 1,
        by_sample(table, "truth", len(labels)),
        by_sample(table, column, len(labels)),
    )
    return scores.take_labels([i for i, name in enumerate(labels) if not label or name in label])


def to_arrays(table: pd.DataFrame, path: Path) -> Predictions:
    """Convert a table of predictions to arrays; labels "name[0]", "name[1]", ... are the bins of one label.

    Raises:
        ValueError: labels of some samples are missing in the table of `path`.
    """
    labels = check_labels(table, path)
    subject_id = table["subject_id"].to_numpy()[:: len(labels)]
    truth, probability = (by_sample(table, name, len(labels)) for name in ("truth", "probability"))
    name = re.sub(r"\[0\]$", "", labels[0])
    if len(labels) > 1 and labels == tuple(f"{name}[{k}]" for k in range(len(labels))):
        bins = np.where(np.isnan(truth[:, 0]), np.nan, truth.argmax(1))[:, None]
        return Predictions("ordinal", (name,), subject_id, bins, probability)
    return Predictions("multilabel", labels, subject_id, truth, probability)


def write_embeddings(
    path: Path, embeddings: np.ndarray, names: Sequence[str], labels: np.ndarray, seed: int
) -> None:
    """Write embeddings [n, D] and labels [n, L], of MAX_EMBEDDINGS samples at most, drawn by `seed`."""
    sample = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[:MAX_EMBEDDINGS])
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, embeddings=embeddings[sample], labels=labels[sample], names=np.array(names, str))


def read_embeddings(path: Path, label: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return embeddings [n, D] and labels [n], None if there are none; `label` chooses among [n, L].

    Raises:
        ValueError: the file is missing or does not fit, or `label` is not one of its names.
    """
    rule = f"{path} must be an .npz with embeddings [n, D], n and D 2 or more, and optionally labels [n]"
    if not path.is_file():
        raise ValueError(f"{path} is missing; run_gpu.py --protocol lineareval writes it")
    try:
        with np.load(path, allow_pickle=False) as file:
            embeddings, labels, names = file["embeddings"], file.get("labels"), file.get("names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{rule}; write it with numpy.savez") from None
    fits = labels is None or len(labels) == len(embeddings)
    if embeddings.ndim != 2 or min(embeddings.shape) < 2 or not fits:
        shapes = embeddings.shape if labels is None else (embeddings.shape, labels.shape)
        raise ValueError(f"{rule}; it has {shapes}")
    finite = np.isfinite(embeddings)
    if not finite.all():
        raise ValueError(f"{path}: {(~finite).sum()} numbers are not finite; remove their rows")
    if labels is None or names is None:
        return embeddings, labels
    label = names[0] if not label and len(names) == 1 else label
    if label not in names:
        raise ValueError(f"{path}: points are coloured by one label; choose --label from {', '.join(names)}")
    return embeddings, labels[:, names.tolist().index(label)]
