"""Embeddings of the test samples: an .npz file of embeddings [n, D], labels [n, L] and their names [L]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.files import atomic_write

EMBEDDINGS = "embeddings_test.npz"
MAX_EMBEDDINGS = 3000  # samples that are kept: as many as one picture can show


def write_embeddings(
    path: Path, embeddings: np.ndarray, names: Sequence[str], labels: np.ndarray, seed: int
) -> None:
    """Write embeddings [n, D] and labels [n, L], of MAX_EMBEDDINGS samples at most, drawn by `seed`.

    `python -m evaluation.plots embedding` shows them.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[:MAX_EMBEDDINGS])
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, embeddings=embeddings[chosen], labels=labels[chosen], names=np.array(names, str))


def read_embeddings(path: Path, label: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return embeddings [n, D] and labels [n], None if there are none.

    Args:
        path: an .npz file, of `write_embeddings` or of any other program.
        label: which of labels [n, L] to return; "" if there is only one.

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
