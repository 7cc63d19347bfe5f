"""Inputs that several sets of samples read, each once, so that they share features; batches of features."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property, partial
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from datasets.batches import Batches
from datasets.data_config import DataConfig
from datasets.samples import Samples
from datasets.schema import SHARES_STAYS, FeatureBatch, RecordNeeds
from datasets.store import Store
from utils.device import to_device
from utils.distributed import Process

# The --data_pairs under which batches of any samples load these modalities and no other.
LOADS: dict[tuple[str, ...], Literal["ehr_all", "cxr_all", "partial"]] = {
    ("ehr",): "ehr_all",
    ("cxr",): "cxr_all",
    ("ehr", "cxr"): "partial",
}


K = TypeVar("K", bound=Hashable)


class UniqueInputs:
    """The `count` hours or X-rays that samples read, each once, in `batches`; `crop` as of Batches."""

    def __init__(
        self,
        store: Store,
        samples: Mapping[K, Samples],
        modality: str,
        config: DataConfig,
        process: Process,
        crop: float | None = None,
        needs: RecordNeeds = SHARES_STAYS,
    ) -> None:
        unique, rows = unique_inputs(list(samples.values()), modality)
        self.modality = modality
        self.count, self.samples = len(unique), unique
        self._rows: dict[Hashable, np.ndarray] = dict(zip(samples, rows, strict=True))
        reading = replace(config, data_pairs=LOADS[(modality,)], data_ratio=1.0, retrieve_cxr="recent")
        self._read = partial(
            Batches,
            store,
            config=reading,
            seed=0,
            device=process.device,
            train=False,
            rank=process.rank,
            world=process.world,
            by="input",
            crop=crop,
            needs=needs,
        )

    @property
    def keys(self) -> np.ndarray:
        """What the store calls each input, int64 [count]: the row of the X-ray, or of the last hour.

        The last hour is numbered as in Store.read_hours; it ends one stay at one time.
        """
        if self.modality == "cxr":
            return self.samples.cxr_row
        partial = self.samples.partial_bin_row
        return np.where(partial >= 0, partial, self.samples.offset + self.samples.bins - 1)

    @cached_property
    def batches(self) -> Batches:
        """All of them."""
        return self._read(self.samples)

    def part(self, index: np.ndarray) -> Batches:
        """Return batches of some of them."""
        return self._read(self.samples.take(index))

    def rows_of(self, name: Hashable) -> Tensor:
        """Return the index of each sample's input among the unique ones, int64 [n]; -1 if it has none."""
        return torch.from_numpy(self._rows[name])


def unique_inputs(parts: Sequence[Samples], modality: str) -> tuple[Samples, list[np.ndarray]]:
    """Return the unique hours ("ehr") or X-rays ("cxr") that samples read, and the row of each sample's own.

    The first are samples without labels; the rows are int64 [n] for every part, -1 without an X-ray.
    """
    keys = np.concatenate([input_keys(part, modality) for part in parts])
    present = np.flatnonzero(keys[:, -1] >= 0 if modality == "cxr" else np.ones(len(keys), bool))
    _, first, index = np.unique(keys[present], axis=0, return_index=True, return_inverse=True)
    rows = np.full(len(keys), -1, np.int64)
    rows[present] = index.ravel()
    ends = np.cumsum([len(part) for part in parts])
    return _without_labels(parts).take(present[first]), np.split(rows, ends[:-1])


def input_keys(samples: Samples, modality: str) -> np.ndarray:
    """Return a row for each sample, equal for samples that read the same."""
    if modality == "cxr":
        return samples.cxr_row[:, None]
    return np.stack([samples.offset, samples.bins, _end_of_partial_bin(samples)], axis=1)


def _end_of_partial_bin(samples: Samples) -> np.ndarray:
    """Return end_hours of the samples with a partial bin, else -1; each task has a copy of such a bin."""
    return np.where(samples.partial_bin_row >= 0, samples.end_hours, -1)


def _without_labels(parts: Sequence[Samples]) -> Samples:
    """Return all parts one after another; tasks differ in how many labels they have."""
    none = [np.zeros((len(part), 0), np.float32) for part in parts]
    arrays = [replace(part, labels=no, raw_labels=no).arrays() for part, no in zip(parts, none, strict=True)]
    return Samples(**{name: np.concatenate([part[name] for part in arrays]) for name in arrays[0]})


@dataclass(frozen=True, eq=False)
class FeatureBatches:
    """Batches of features in memory, with the interface of the batches that read a store.

    A training order depends on (seed, epoch) alone; a rank takes a contiguous share of each batch.
    """

    features: Tensor
    labels: Tensor
    batch_size: int
    _: KW_ONLY
    seed: int = 0
    train: bool = False
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[FeatureBatch, None, None]:
        """Yield this rank's share of every batch of an epoch, from step `start` on."""
        order = np.arange(len(self.features))
        if self.train:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        rows = torch.from_numpy(order).split(self.batch_size)[start:]
        indices = to_device(torch.from_numpy(order), self.features.device).split(self.batch_size)[start:]
        for batch in zip(rows, indices, strict=True):
            row, index = (part.tensor_split(self.world)[self.rank] for part in batch)
            yield FeatureBatch(self.features.index_select(0, index), self.labels.index_select(0, index), row)
