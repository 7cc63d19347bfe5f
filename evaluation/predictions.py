"""Files with a row per sample: predictions of a split (CSV), and embeddings of the test samples (.npz)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from evaluation.results import read_table
from utils.files import atomic_write

if TYPE_CHECKING:  # the commands that read predictions need no torch
    from datasets.samples import Samples

COLUMNS = ("stay_id", "subject_id", "end_hours", "label", "truth", "probability")
EMBEDDINGS = "embeddings_test.npz"
MAX_EMBEDDINGS = 3000  # samples that are kept: as many as one picture can show


class Predictions(NamedTuple):
    """The predictions of n samples."""

    kind: str  # "multilabel" or "ordinal"
    labels: tuple[str, ...]
    subject_id: np.ndarray  # [n]
    truth: np.ndarray  # [n, L], NaN if unknown
    probability: np.ndarray  # [n, L], or [n, K] of the K bins of an ordinal label


def write_predictions(path: Path, samples: Samples, labels: Sequence[str], probability: np.ndarray) -> None:
    """Write probabilities [n, L] as CSV atomically, a row per sample and label; unknown truth is empty.

    An ordinal label, [n, K], becomes K labels "name[k]", with truth 1 for its bin and 0 for the others.
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
        }
    )
    with atomic_write(Path(path)) as partial:
        table.to_csv(partial, index=False)


def read_predictions(path: Path) -> pd.DataFrame:
    """Return the table that `write_predictions` wrote."""
    return read_table(path, COLUMNS)


def to_arrays(table: pd.DataFrame, path: Path) -> Predictions:
    """Convert a table of predictions to arrays; labels "name[0]", "name[1]", ... are the bins of one label.

    Raises:
        ValueError: labels of some samples are missing in the table of `path`.
    """
    labels = tuple(dict.fromkeys(table["label"]))
    if len(table) % len(labels) or (table["label"].to_numpy().reshape(-1, len(labels)) != labels).any():
        raise ValueError(f"{path} does not have every label of each sample: it was cut; evaluate again")
    subject_id = table["subject_id"].to_numpy()[:: len(labels)]
    truth, probability = (
        table[name].to_numpy(np.float64, na_value=np.nan).reshape(-1, len(labels))
        for name in ("truth", "probability")
    )
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
