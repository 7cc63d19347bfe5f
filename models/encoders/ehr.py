"""The EHR encoder: an LSTM over the hours of a stay."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from datasets.schema import channel_count
from models.encoders.base import Encoder

CHUNK_HOURS = 16  # see _run_lstm_in_chunks


class HourlyStates(NamedTuple):
    """Hidden states of B stays by the hour, [T, B, D], and the lengths of the stays in hours, [B] on the CPU.

    States after the end of a stay are never read.
    """

    states: Tensor
    lengths: Tensor

    def mean(self) -> Tensor:
        """Return the mean over the hours of each stay, [B, D]."""
        lengths = self._lengths_on_device()
        is_padding = torch.arange(len(self.states), device=lengths.device)[:, None] >= lengths
        return self.states.masked_fill(is_padding[..., None], 0.0).sum(dim=0) / lengths[:, None]

    def last(self) -> Tensor:
        """Return the state in the last hour of each stay, [B, D]."""
        lengths = self._lengths_on_device()
        return self.states[lengths - 1, torch.arange(len(lengths), device=lengths.device)]

    def packed(self) -> PackedSequence:
        """Return the states as a packed sequence, [sum of hours, D]; the order of the stays is kept."""
        return pack_padded_sequence(self.states, self.lengths, enforce_sorted=False)

    def _lengths_on_device(self) -> Tensor:
        return self.lengths.to(self.states.device, non_blocking=True)


Sequences = TypeVar("Sequences", PackedSequence, Tensor)


def run_lstm(lstm: nn.LSTM, inputs: Sequences) -> tuple[Sequences, Tensor]:
    """Return the last layer's hidden states at all steps, and those at the end of each sequence, [B, D].

    They are float32 under autocast too: rounding errors add up over steps, and half precision saves no time.
    """
    with torch.autocast(inputs.data.device.type, enabled=False):
        inputs = inputs.to(lstm.get_parameter("weight_hh_l0").dtype)
        if isinstance(inputs, PackedSequence) and inputs.data.device.type == "cpu":
            return _run_lstm_in_chunks(lstm, inputs)
        states, (last, _) = lstm(inputs)
    return states, last[-1]


def _run_lstm_in_chunks(lstm: nn.LSTM, inputs: PackedSequence) -> tuple[PackedSequence, Tensor]:
    """Run an LSTM in chunks of hours: the cost of a backward pass on a CPU is quadratic in the hours."""
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

    def encode_lower_layers(self, ehr: PackedSequence) -> HourlyStates:
        """Map packed hours [sum of hours, channels] to the hidden states below the last layer."""
        return HourlyStates(*pad_packed_sequence(run_lstm(self.lstm, ehr)[0]))

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
        first_row = states.batch_sizes.cumsum(0) - states.batch_sizes  # of each hour in the packed data
        row_in_hour = states.unsorted_indices
        assert row_in_hour is not None, "stays are packed in any order"
        feature: Tensor = self.dropout(states.data[first_row.to(last.device)[last] + row_in_hour[stay]])
        return feature

    def _run_top(self, top: nn.LSTM, states: PackedSequence) -> tuple[PackedSequence, Tensor]:
        return run_lstm(top, states._replace(data=self.dropout(states.data)))
