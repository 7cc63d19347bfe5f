"""Features by frozen encoders, kept beside the store: each X-ray and record is encoded once for all runs.

A folder STORE.features/NAME holds them, where NAME tells the weights, the size of the images or the task that
cuts the records, and what else decides a feature. Its files are written once and never changed, so that
processes can add to it at the same time, and an interruption loses at most one file. It may be removed at any
time.
"""

from __future__ import annotations

import hashlib
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from datasets.features import UniqueInputs
from datasets.schema import Batch
from datasets.store import Store
from training.predict import predict
from utils import distributed
from utils.files import atomic_write
from utils.log import logger

INPUTS_PER_FILE = 2048
DIGITS = 16  # of the hash of the weights in a folder's name
NOUNS = {"ehr": "records", "cxr": "X-rays"}


def weights_hash(encoder: nn.Module) -> str:
    """Return the SHA-256 of an encoder: its layers, and each number of its state."""
    digest = hashlib.sha256(repr((encoder, getattr(encoder, "pretrained", None))).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class FeatureCache:
    """The features in a folder, float32 [n, D], by the number of their input (UniqueInputs.keys)."""

    folder: Path

    @classmethod
    def of(cls, store: Store, encoder: nn.Module, view: str) -> FeatureCache:
        """Return that of an image encoder; `view` says how it sees the store's X-rays, such as 224-kept."""
        return cls._of(store, encoder, f"{view}-{store.manifest.files['cxr.npy'].sha256[:8]}")

    @classmethod
    def of_records(cls, store: Store, encoder: nn.Module, task: str) -> FeatureCache:
        """Return that of a record encoder for the samples of a task.

        The hash of the task's manifest stands for its samples and the store, the name of the splits for the
        hours that these are normalised by.
        """
        read = f"{store.fingerprint_of(task)} {store.first_partial_bin(task)} {store.split_name}"
        return cls._of(store, encoder, f"{task}-{hashlib.sha256(read.encode()).hexdigest()[:8]}")

    @classmethod
    def _of(cls, store: Store, encoder: nn.Module, reads: str) -> FeatureCache:
        name = f"{weights_hash(encoder)[:DIGITS]}-{reads}"
        return cls(Path(f"{store.folder.resolve()}.features") / name)

    def can_write(self) -> bool:
        """Return whether the folder can be written to; a warning says why not."""
        probe = self.folder / f"{uuid.uuid4().hex}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            logger.warning(f"{self.folder}: features cannot be kept there ({error.strerror})")
            return False
        return True

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows int64 [n], rising, and their features.

        Raises:
            ValueError: A file is damaged.
        """
        rows, features = [np.empty(0, np.int64)], []
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as file:
                    rows.append(file["rows"])
                    features.append(file["features"])
            except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
                raise ValueError(f"{path}: damaged ({error}); remove it, and it is made again") from None
        row, first = np.unique(np.concatenate(rows), return_index=True)
        return row, np.concatenate(features)[first] if features else np.empty((0, 0), np.float32)

    def add(self, rows: np.ndarray, features: np.ndarray) -> None:
        """Write the features of some inputs."""
        with atomic_write(self.folder / f"{uuid.uuid4().hex}.npz") as partial, partial.open("wb") as file:
            np.savez(file, rows=rows, features=features)


def cached_features(
    cache: FeatureCache, encode: Callable[[Batch], Tensor], inputs: UniqueInputs
) -> np.ndarray:
    """Return the features [n, D] of distinct inputs, on all processes; encode those that are not kept yet."""
    wanted = inputs.keys
    rows, features = cache.read() if distributed.is_main() else (np.empty(0, np.int64), np.empty((0, 0)))
    rows = distributed.gather_arrays(rows)
    missing = np.flatnonzero(~np.isin(wanted, rows))
    logger.info(_what_is_kept(len(wanted) - len(missing), len(wanted), NOUNS[inputs.modality], cache.folder))
    made = []
    for start in range(0, len(missing), INPUTS_PER_FILE):
        part = missing[start : start + INPUTS_PER_FILE]
        made.append(predict(encode, inputs.part(part)).astype(np.float32))
        if distributed.is_main():
            cache.add(wanted[part], made[-1])
    kept = np.flatnonzero(np.isin(rows, wanted))
    old = distributed.gather_arrays(features[kept] if distributed.is_main() else np.empty((0, 0), np.float32))
    result = np.empty((len(wanted), (made or [old])[0].shape[1]), np.float32)
    if len(kept):
        place = np.argsort(wanted)
        result[place[np.searchsorted(wanted, rows[kept], sorter=place)]] = old
    if made:
        result[missing] = np.concatenate(made)
    return result


def _what_is_kept(kept: int, wanted: int, noun: str, folder: Path) -> str:
    """Return what a run says of the features that it needs.

    >>> _what_is_kept(0, 88, "X-rays", Path("store.features/one"))
    'features of 88 X-rays are computed once, and kept in store.features/one: none is there yet'
    """
    there = f"all {wanted} are" if kept == wanted else f"{kept} are" if kept else "none is"
    ending = "" if kept == wanted else " yet" if not kept else " already"
    return f"features of {wanted} {noun} are computed once, and kept in {folder}: {there} there{ending}"
