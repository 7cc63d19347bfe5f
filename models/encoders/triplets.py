"""The triplets of a batch, by sample."""

import torch
from torch import Tensor

from datasets.schema import Triplets


def sample_rows(triplets: Triplets, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows of the triplets of each sample, one sample after the other, and how many each has.

    Both are int64 on the CPU. A sample with more than `most` triplets, if given, has the last ones.
    """
    lengths = triplets.counts if most is None else triplets.counts.clamp(max=most)
    start = triplets.first + triplets.counts - lengths
    ends = lengths.cumsum(0)
    return torch.arange(int(lengths.sum())) + (start - ends + lengths).repeat_interleave(lengths), lengths
