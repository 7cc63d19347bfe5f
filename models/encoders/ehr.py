"""The EHR encoder: an LSTM over the hours of a stay."""

from typing import NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import channel_count
from models.encoders.base import Encoder
from utils.device import to_device

CHUNK_HOURS = 16  # see _run_lstm_in_chunks
MAX_PADDING = 2  # how many times as many hours as stays have may be read on a CPU, with padding


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
        stay, lengths, last_row = (to_device(x, device) for x in _stays_of_rows(states.batch_sizes))
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


def _stays_of_rows(batch_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the stay of each row of packed hours, and the hours and the last row of each stay.

    Stays are counted in the order of the packed sequence, longest first.

    >>> [part.tolist() for part in _stays_of_rows(torch.tensor([2, 1, 1]))]
    [[0, 1, 0, 0], [3, 1], [3, 1]]
    """
    sizes = batch_sizes.numpy()
    first_row = np.cumsum(sizes) - sizes
    stays = np.arange(sizes[0])
    lengths = len(sizes) - np.searchsorted(sizes[::-1], stays, side="right")
    stay = np.arange(sizes.sum()) - np.repeat(first_row, sizes)
    return torch.from_numpy(stay), torch.from_numpy(lengths), torch.from_numpy(first_row[lengths - 1] + stays)


Sequences = TypeVar("Sequences", PackedSequence, Tensor)


def run_lstm(lstm: nn.LSTM, inputs: Sequences) -> tuple[Sequences, Tensor]:
    """Return the last layer's hidden states at all steps, and those at the end of each sequence, [B, D].

    They are float32 under autocast too: rounding errors add up over steps, and half precision saves no time.
    """
    with torch.autocast(inputs.data.device.type, enabled=False):
        inputs = inputs.to(lstm.get_parameter("weight_hh_l0").dtype)
        if isinstance(inputs, PackedSequence) and inputs.data.device.type == "cpu":
            rows = int(inputs.batch_sizes[0]) * len(inputs.batch_sizes)
            fits = inputs.data.dtype == torch.float32 and rows <= MAX_PADDING * len(inputs.data)
            return (_run_lstm_padded if fits else _run_lstm_in_chunks)(lstm, inputs)
        states, (last, _) = lstm(inputs)
    return states, last[-1]


def _run_lstm_padded(lstm: nn.LSTM, inputs: PackedSequence) -> tuple[PackedSequence, Tensor]:
    """Run an LSTM on padded stays: oneDNN, which has no packed sequences, is several times as fast."""
    stays, hours = int(inputs.batch_sizes[0]), len(inputs.batch_sizes)
    stay, _, last_row = _stays_of_rows(inputs.batch_sizes)
    row = torch.arange(hours).repeat_interleave(inputs.batch_sizes) * stays + stay
    padded = inputs.data.new_zeros(hours * stays, inputs.data.shape[1]).index_copy(0, row, inputs.data)
    output, _ = lstm(padded.view(hours, stays, -1))
    states = output.flatten(0, 1).index_select(0, row)
    if inputs.unsorted_indices is not None:
        last_row = last_row[inputs.unsorted_indices]
    return inputs._replace(data=states), states.index_select(0, last_row)


def _run_lstm_in_chunks(lstm: nn.LSTM, inputs: PackedSequence) -> tuple[PackedSequence, Tensor]:
    """Run an LSTM in chunks of hours: a backward pass over a packed sequence is quadratic in its hours."""
    chunk_sizes = inputs.batch_sizes.split(CHUNK_HOURS)
    chunks = inputs.data.split([int(sizes.sum()) for sizes in chunk_sizes])
    next_chunk_sizes = (*chunk_sizes[1:], chunk_sizes[0][:0])
    state, states, ended = None, [], []
    for chunk, sizes, next_sizes in zip(chunks, chunk_sizes, next_chunk_sizes, strict=True):
        output, (hidden, cell) = lstm(PackedSequence(chunk, sizes), state)
        states.append(output.data)
        continuing = int(next_sizes[:1].sum())  # stays are sorted by length, so the others end in this chunk
        ended.append(hidden[-1, continuing:])
        state = hidden[:, :continuing], cell[:, :continuing]
    last = torch.cat(ended[::-1])
    order = inputs.unsorted_indices
    return inputs._replace(data=torch.cat(states)), last if order is None else last[order]


class EHREncoder(Encoder):
    """An LSTM over hourly bins; the feature of a stay is the hidden state in its last hour.

    Recurrent weights start orthogonal, input weights as in Xavier's initialization, and biases at zero. For
    fusions that act between the layers, `encode_lower_layers` and `encode_top_layer` do what `forward` does:
    `lstm` is all layers but the last, or the only layer, and `top` the last, or None.
    """

    def __init__(
        self, channels: int | None = None, feature_dim: int = 128, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        width = channel_count() if channels is None else channels
        self.lstm = nn.LSTM(width, feature_dim, max(layers - 1, 1), dropout=dropout if layers > 2 else 0.0)
        self.top = nn.LSTM(feature_dim, feature_dim) if layers > 1 else None
        self.dropout = nn.Dropout(dropout)
        self._initialize()

    def _initialize(self) -> None:
        for lstm in filter(None, (self.lstm, self.top)):
            for input_weight, recurrent_weight, *biases in lstm.all_weights:
                nn.init.xavier_uniform_(input_weight)
                nn.init.orthogonal_(recurrent_weight)
                for bias in biases:
                    nn.init.zeros_(bias)

    def encode_lower_layers(self, ehr: PackedSequence, stay: Tensor, hours: Tensor) -> HourlyStates:
        """Map packed hours [sum of hours, channels] to the samples' hidden states below the last layer.

        stay, hours: as in HourlyStates.of_prefixes.
        """
        return HourlyStates.of_prefixes(run_lstm(self.lstm, ehr)[0], stay, hours)

    def encode_top_layer(self, hours: HourlyStates) -> Tensor:
        """Return the features [B, feature_dim], float32, of what `encode_lower_layers` returned."""
        last = hours.last() if self.top is None else self._run_top(self.top, hours.packed())[1]
        feature: Tensor = self.dropout(last)
        return feature

    def forward(self, ehr: PackedSequence) -> Tensor:
        """Map packed hours [sum of hours, channels] to features [B, feature_dim], float32."""
        states, last = run_lstm(self.lstm, ehr)
        feature: Tensor = self.dropout(last if self.top is None else self._run_top(self.top, states)[1])
        return feature

    def prefix_features(self, ehr: PackedSequence, stay: Tensor, last: Tensor) -> Tensor:
        """Return the features [n, feature_dim] of n stays that are cut after an hour; stay, last: int64 [n].

        A state depends on earlier hours only, so one pass over a stay gives the features of all its prefixes.
        """
        states = run_lstm(self.lstm, ehr)[0]
        states = states if self.top is None else self._run_top(self.top, states)[0]
        first_row = to_device(states.batch_sizes.cumsum(0) - states.batch_sizes, last.device)  # of each hour
        row_in_hour = states.unsorted_indices
        assert row_in_hour is not None, "stays are packed in any order"
        feature: Tensor = self.dropout(states.data[first_row[last] + row_in_hour[stay]])
        return feature

    def _run_top(self, top: nn.LSTM, states: PackedSequence) -> tuple[PackedSequence, Tensor]:
        return run_lstm(top, states._replace(data=self.dropout(states.data)))
