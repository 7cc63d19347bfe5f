"""Batches of random samples, some without an image, as the models see them."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pack_sequence

from datasets.schema import Batch, channel_count


def random_batch(
    hours: Sequence[int], has_cxr: Sequence[bool], labels: int = 1, size: int = 64, seed: int = 0
) -> Batch:
    """A batch of len(hours) stays, with an image of size x size where has_cxr says so."""
    draw = torch.Generator().manual_seed(seed)
    stays = [torch.randn(n, channel_count(), generator=draw) for n in hours]
    return Batch(
        ehr=pack_sequence(stays, enforce_sorted=False),
        hours=torch.tensor(hours),
        cxr=torch.rand(sum(has_cxr), 1, size, size, generator=draw),
        has_ehr=torch.ones(len(hours), dtype=torch.bool),
        has_cxr=torch.tensor(has_cxr),
        labels=torch.randint(0, 2, (len(hours), labels), generator=draw).float(),
        row=torch.arange(len(hours)),
        gap_days=torch.where(torch.tensor(has_cxr), 0.5, torch.nan),
    )
