"""Batches of random samples, some without an image, as the models see them."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from datasets.schema import Batch, Triplets, channel_count, variables


def random_batch(
    hours: Sequence[int], has_cxr: Sequence[bool], labels: int = 1, size: int = 64, seed: int = 0
) -> Batch:
    """A batch of len(hours) stays, with an image of size x size where has_cxr says so."""
    draw = torch.Generator().manual_seed(seed)
    stays = [torch.randn(n, channel_count(), generator=draw) for n in hours]
    present = torch.tensor(has_cxr)
    return Batch(
        ehr=pack_sequence(stays, enforce_sorted=False),
        stay=torch.arange(len(hours)),
        last=torch.tensor(hours) - 1,
        hours=torch.tensor(hours),
        cxr=torch.rand(sum(has_cxr), 1, size, size, generator=draw),
        image=torch.where(present, present.cumsum(0) - 1, -1),
        paired=present.nonzero()[:, 0],
        has_ehr=torch.ones(len(hours), dtype=torch.bool),
        has_cxr=present,
        labels=torch.randint(0, 2, (len(hours), labels), generator=draw).float(),
        row=torch.arange(len(hours)),
        gap_days=torch.where(present, 0.5, torch.nan),
    )


def random_triplets(hours: Sequence[int], stay: torch.Tensor, end: torch.Tensor) -> Triplets:
    """Two triplets in each hour of some stays; samples of these stays read those until their end [B]."""
    draw = torch.Generator().manual_seed(1)
    times = [(torch.rand(2 * n, generator=draw, dtype=torch.float64) * n).sort().values for n in hours]
    count = torch.tensor([int((times[row] <= last).sum()) for row, last in zip(stay, end, strict=True)])
    lengths = torch.tensor([len(part) for part in times])
    total = int(lengths.sum())
    return Triplets(
        hours=torch.cat(times),
        channel=torch.randint(0, variables()[0].mask_channel, (total,), generator=draw),
        value=torch.randn(total, generator=draw, dtype=torch.float64),
        first=(lengths.cumsum(0) - lengths)[stay],
        counts=count,
        end=end.double(),
    )


def take_triplets(triplets: Triplets, rows: Sequence[int]) -> Triplets:
    """Those of some samples, each with triplets of its own."""
    first, count = triplets.first[list(rows)], triplets.counts[list(rows)]
    read = torch.cat([torch.arange(start, start + n) for start, n in zip(first, count, strict=True)])
    return Triplets(
        *(part[read] for part in triplets[:3]),
        first=count.cumsum(0) - count,
        counts=count,
        end=triplets.end[list(rows)],
    )


def take_samples(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some samples of a batch, each with hours and an image of its own: nothing is shared."""
    stays = unpack_sequence(batch.ehr)
    hours = [stays[batch.stay[row]][: batch.hours[row]] for row in rows]
    some = Batch(
        *(
            value if name in ("ehr", "cxr", "paired", "triplets") else value[list(rows)]
            for name, value in zip(Batch._fields, batch, strict=True)
        )
    )
    present = some.has_cxr
    return some._replace(
        ehr=pack_sequence(hours, enforce_sorted=False),
        stay=torch.arange(len(rows)),
        cxr=batch.cxr[some.image[present]],
        image=torch.where(present, present.cumsum(0) - 1, -1),
        paired=present.nonzero()[:, 0],
        triplets=None if batch.triplets is None else take_triplets(batch.triplets, rows),
    )
