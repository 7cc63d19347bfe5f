"""Hidden states by the hour, and packed stays: their rows, earlier hours, and padded blocks."""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from utils.device import to_device

SIMILAR = 2  # lengths that share a padded block differ by this factor at most


class HourlyStates(NamedTuple):
    """Hidden states of B stays in all their hours, in the order of the packed sequence that nn.LSTM reads.

    states: [sum of hours, D]. stay: the stay of each of these rows, int64 [sum of hours]. lengths, last_row:
    hours and row of the last hour of each stay, int64 [B]. layout: the packed sequence, with other data. No
    stay is padded: 256 ICU stays padded to the longest would be about eleven times as large.
    """

    states: Tensor
    stay: Tensor
    lengths: Tensor
    last_row: Tensor
    layout: PackedSequence

    @classmethod
    def of(cls, states: PackedSequence) -> Self:
        """Take over the states and the order of a packed sequence."""
        device = states.data.device
        stay, lengths, last_row = (to_device(x, device) for x in stays_of_rows(states.batch_sizes))
        if states.sorted_indices is not None and states.unsorted_indices is not None:
            stay, order = states.sorted_indices[stay], states.unsorted_indices
            lengths, last_row = lengths[order], last_row[order]
        return cls(states.data, stay, lengths, last_row, states)

    @classmethod
    def of_prefixes(cls, states: PackedSequence, stay: Tensor, hours: Tensor) -> Self:
        """Return the states of B samples, each of which reads the first hours of a stay.

        stay: int64 [B], where the states are. hours: int64 [B], on the CPU.
        """
        device, row_in_hour = states.data.device, states.unsorted_indices
        assert row_in_hour is not None, "stays are packed in any order"
        lengths, order = hours.sort(descending=True, stable=True)
        batch_sizes = len(hours) - torch.bincount(lengths)[: int(hours.max())].cumsum(0)
        hour = torch.arange(len(batch_sizes)).repeat_interleave(batch_sizes)
        position = torch.arange(len(hour)) - (batch_sizes.cumsum(0) - batch_sizes)[hour]
        first_row = states.batch_sizes.cumsum(0) - states.batch_sizes
        of_hour, sample, place, inverse = (
            to_device(x, device) for x in (first_row[hour], order[position], order, order.argsort())
        )
        rows = of_hour + row_in_hour[stay[sample]]
        return cls.of(PackedSequence(states.data.index_select(0, rows), batch_sizes, place, inverse))

    def of_each_hour(self, values: Tensor) -> Tensor:
        """Repeat values of the stays [B, D] for each of their hours, [sum of hours, D]."""
        return values.index_select(0, self.stay)

    def mean(self) -> Tensor:
        """Return the mean over the hours of each stay, [B, D]."""
        zeros = self.states.new_zeros(len(self.lengths), self.states.shape[1])
        return zeros.index_add(0, self.stay, self.states) / self.lengths[:, None]

    def last(self) -> Tensor:
        """Return the state in the last hour of each stay, [B, D]."""
        return self.states.index_select(0, self.last_row)

    def packed(self) -> PackedSequence:
        """Return the states as a packed sequence."""
        return self.layout._replace(data=self.states)


def stays_of_rows(batch_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the stay of each row of packed hours, and the hours and the last row of each stay.

    Stays are counted in the order of the packed sequence, longest first.

    >>> [part.tolist() for part in stays_of_rows(torch.tensor([2, 1, 1]))]
    [[0, 1, 0, 0], [3, 1], [3, 1]]
    """
    sizes = batch_sizes.numpy()
    first_row = np.cumsum(sizes) - sizes
    stays = np.arange(sizes[0])
    lengths = len(sizes) - np.searchsorted(sizes[::-1], stays, side="right")
    stay = np.arange(sizes.sum()) - np.repeat(first_row, sizes)
    return torch.from_numpy(stay), torch.from_numpy(lengths), torch.from_numpy(first_row[lengths - 1] + stays)


def earlier_rows(batch_sizes: Tensor, hours: int) -> Tensor:
    """Return the row, in packed hours, of the same stay some hours earlier: int64, -1 before its first hour.

    >>> earlier_rows(torch.tensor([2, 2, 1]), 1).tolist()
    [-1, -1, 0, 1, 2]
    """
    sizes = batch_sizes.numpy()
    first_row = np.cumsum(sizes) - sizes
    hour = np.repeat(np.arange(len(sizes)), sizes)
    stay = np.arange(len(hour)) - first_row[hour]
    row = np.where(hour >= hours, first_row[np.maximum(hour - hours, 0)] + stay, -1)
    return torch.from_numpy(row)


class Blocks(NamedTuple):
    """Sequences of similar length, padded to the longest of their block.

    rows: for each block, the row in the packed data of each step, int64 [S, T]; a step after the last repeats
    it. present: which steps are none after the last, bool [S, T]. place: where each packed row is among the
    steps of all blocks, int64 [N].
    """

    rows: list[Tensor]
    present: list[Tensor]
    place: Tensor

    @classmethod
    def of_hours(cls, hours: PackedSequence) -> Self:
        """Lay out packed hours."""
        sizes = hours.batch_sizes.numpy()
        first_row = np.cumsum(sizes) - sizes
        lengths = stays_of_rows(hours.batch_sizes)[1].numpy()
        return cls._of(lengths, lambda stay, hour: first_row[hour] + stay, hours.data.device)

    @classmethod
    def of_lengths(cls, lengths: np.ndarray, device: torch.device) -> Self:
        """Lay out sequences of some lengths, int64 [S], one after the other; they may be empty."""
        first = np.cumsum(lengths) - lengths
        return cls._of(lengths, lambda sequence, step: first[sequence] + step, device)

    @classmethod
    def _of(
        cls,
        lengths: np.ndarray,
        row: Callable[[np.ndarray, np.ndarray], np.ndarray],
        device: torch.device,
    ) -> Self:
        """Lay out sequences whose steps are in some rows of the packed data."""
        blocks, place, steps = [], np.zeros(int(lengths.sum()), np.int64), 0
        longest_first = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        while len(longest_first):
            longest = lengths[longest_first[0]]
            alike = np.count_nonzero(SIMILAR * lengths[longest_first] >= longest)
            block, longest_first = longest_first[:alike], longest_first[alike:]
            step = np.minimum(np.arange(longest), lengths[block][:, None] - 1)
            of_block = row(block[:, None], step)
            present = np.arange(longest) < lengths[block][:, None]
            place[of_block[present]] = steps + np.flatnonzero(present)
            steps += of_block.size
            blocks.append((of_block, present))
        rows, masks = (
            [to_device(torch.from_numpy(part), device) for part in parts]
            for parts in zip(*blocks, strict=True)
        )
        return cls(rows, masks, to_device(torch.from_numpy(place), device))

    def apply(self, function: Callable[..., Tensor], *packed: Tensor) -> Tensor:
        """Apply a function (present [S, T], padded blocks [S, T, D] x n) -> [S, T, E] to data [N, D] x n.

        Returns [N, E]. In steps after the last of a sequence, the function reads the last once more; what it
        returns there is not used.
        """
        blocks = [
            function(present, *(data[rows] for data in packed))
            for rows, present in zip(self.rows, self.present, strict=True)
        ]
        flat = torch.cat([block.flatten(0, 1) for block in blocks])
        return flat.index_select(0, self.place)
