"""What several sets of samples read of a modality, each piece once: features can then be shared."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from datasets.batches import Batches, DataConfig, Samples, concat_ranges
from datasets.schema import PrefixBatch
from datasets.store import Store
from utils.distributed import Process

# The fields of a sample that say which part of the store its modality is.
READ = {"ehr": ("offset", "bins", "tail_row"), "cxr": ("cxr_row",)}
# Samples that agree in these read the hours of one stay from its start, one further than another.
RECORD = ("offset", "tail_row")
# The choice of --data_pairs by which batches of any samples load these modalities and no other.
LOADS = {("ehr",): "ehr_all", ("cxr",): "cxr_all", ("ehr", "cxr"): "partial"}


class UniqueInputs:
    """The hours or X-rays that sets of samples read, each once, and where every sample finds its own.

    batches: of the distinct pieces, Batch for "cxr", PrefixBatch for "ehr"; count: their number.
    """

    def __init__(
        self,
        store: Store,
        samples: Mapping[Hashable, Samples],
        modality: str,
        config: DataConfig,
        process: Process,
    ) -> None:
        pieces, places = distinct(list(samples.values()), modality)
        self.count = len(pieces)
        self._places = dict(zip(samples, places, strict=True))
        reading = replace(config, data_pairs=LOADS[(modality,)], data_ratio=1.0, retrieve_cxr="recent")

        def batches(rows: Samples) -> Batches:
            here = {"device": process.device, "rank": process.rank, "world": process.world}
            return Batches(store, rows, reading, seed=0, train=False, **here)

        self.batches = PrefixBatches(pieces, batches) if modality == "ehr" else batches(pieces)

    def places(self, name: Hashable) -> Tensor:
        """[n] int64: where each sample of a set has its own among the pieces, -1 if it has none."""
        return torch.from_numpy(self._places[name])


class PrefixBatches:
    """Batches of samples that read hours, with each stay's record read once for all of them.

    batch_size counts stays. A rank's share is the samples of its share of the stays.
    """

    def __init__(self, samples: Samples, batches: Callable[[Samples], Batches]) -> None:
        """`batches` makes, of samples, their batches in order."""
        longest, self._stay = longest_inputs(samples)
        self.stays, self._last = batches(longest), samples.bins - 1
        self._order = np.argsort(self._stay, kind="stable")
        self._begun = np.searchsorted(self._stay[self._order], np.arange(len(longest) + 1))

    def __len__(self) -> int:
        """Steps of an epoch, on every rank."""
        return len(self.stays)

    def epoch(self, epoch: int, start: int = 0) -> Generator[PrefixBatch, None, None]:
        """The samples of this rank's share of every batch of stays, from step `start` on."""
        with closing(self.stays.epoch(epoch, start)) as stream:
            for batch in stream:
                own = batch.row.numpy()
                stay, place = concat_ranges(self._begun[own], self._begun[own + 1] - self._begun[own])
                row = self._order[place]
                told = (torch.from_numpy(a).to(self.stays.device) for a in (stay, self._last[row]))
                yield PrefixBatch(batch.ehr, *told, row=torch.from_numpy(row))


def longest_inputs(samples: Samples) -> tuple[Samples, np.ndarray]:
    """Of the samples that read one stay from its start, the one that reads most; and the place of every
    sample's own among these, int64 [n].

    A sample that ends in a row of its own (tail_row) stands alone.
    """
    order = np.argsort(-samples.bins, kind="stable")
    keys = np.stack([getattr(samples, name)[order] for name in RECORD], axis=1)
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    places = np.empty(len(order), np.int64)
    places[order] = place.ravel()
    return samples.take(order[first]), places


def distinct(parts: Sequence[Samples], modality: str) -> tuple[Samples, list[np.ndarray]]:
    """The distinct hours ("ehr") or X-rays ("cxr") that samples read, and where each sample has its own.

    Returns samples without labels that read each of them once, and for every part [n] int64: the place of a
    sample's among them, -1 if it has none. Samples of other tasks or splits that read the same share a place.
    """
    keys = np.concatenate([_keys(part, modality) for part in parts])
    there = np.flatnonzero(keys[:, -1] >= 0 if modality == "cxr" else np.ones(len(keys), bool))
    _, first, place = np.unique(keys[there], axis=0, return_index=True, return_inverse=True)
    places = np.full(len(keys), -1, np.int64)
    places[there] = place.ravel()
    ends = np.cumsum([len(part) for part in parts])
    return _without_labels(parts).take(there[first]), np.split(places, ends[:-1])


def _keys(part: Samples, modality: str) -> np.ndarray:
    return np.stack([getattr(part, name) for name in READ[modality]], axis=1)


def _without_labels(parts: Sequence[Samples]) -> Samples:
    """All parts one after another; tasks differ in how many labels they have."""
    none = np.zeros((sum(map(len, parts)), 0), np.float32)
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Samples)
        if not field.name.endswith("labels")
    }
    return Samples(**arrays, labels=none, raw_labels=none)
