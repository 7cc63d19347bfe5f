"""The LSTM over the hours of a stay, as published for MedMod."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import channel_count
from models.encoders.ehr import CausalEncoder
from models.encoders.hours import HourlyStates, stays_of_rows

MAX_PADDING = 1.25  # how many times as many hours as stays have are read on a CPU at most

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
    """Run an LSTM on chunks of hours, each padded to its last hour; the states of stays that go on are kept.

    On a CPU, oneDNN is several times as fast, but has no packed sequences, and the backward pass of PyTorch's
    own packed LSTM is quadratic in the hours.
    """
    state, states, ended, end = None, [], [], 0
    chunks = chunk_sizes(inputs.batch_sizes)
    for chunk, sizes in zip(inputs.data.split([int(sizes.sum()) for sizes in chunks]), chunks, strict=True):
        stays, hours, end = int(sizes[0]), len(sizes), end + len(sizes)
        stay, _, last_row = stays_of_rows(sizes)
        row = torch.arange(hours).repeat_interleave(sizes) * stays + stay
        padded = chunk.new_zeros(hours * stays, chunk.shape[1]).index_copy(0, row, chunk)
        output, (hidden, cell) = lstm(padded.view(hours, stays, -1), state)
        states.append(output.flatten(0, 1).index_select(0, row))
        continuing = int(inputs.batch_sizes[end : end + 1].sum())  # the longest stays are the first
        ended.append(states[-1].index_select(0, last_row[continuing:]))
        state = hidden[:, :continuing].contiguous(), cell[:, :continuing].contiguous()
    last = torch.cat(ended[::-1])
    order = inputs.unsorted_indices
    return inputs._replace(data=torch.cat(states)), last if order is None else last[order]


def chunk_sizes(batch_sizes: Tensor) -> list[Tensor]:
    """Split the batch sizes of packed hours; padded, each part is at most MAX_PADDING times as large.

    >>> [sizes.tolist() for sizes in chunk_sizes(torch.tensor([4, 4, 3, 1, 1, 1]))]
    [[4, 4, 3], [1, 1, 1]]
    """
    sizes = batch_sizes.numpy()
    parts, first = [], 0
    while first < len(sizes):
        rows = np.cumsum(sizes[first:])
        padded = sizes[first] * np.arange(1, len(rows) + 1)
        parts.append(1 + int(np.flatnonzero(padded <= MAX_PADDING * rows)[-1]))
        first += parts[-1]
    return list(batch_sizes.split(parts))


class LSTMEncoder(CausalEncoder):
    """An LSTM over hourly bins; the feature of a stay is the hidden state in its last hour.

    Recurrent weights start orthogonal, input weights as in Xavier's initialization, and biases at zero. For
    fusions that act between the layers, `encode_lower_layers` and `encode_top_layer` do what `forward` does:
    `lstm` is all layers but the last, or the only layer, and `top` the last, or None.
    """

    def __init__(self, dim: int = 128, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.feature_dim = dim
        self.lstm = nn.LSTM(channel_count(), dim, max(layers - 1, 1), dropout=dropout if layers > 2 else 0.0)
        self.top = nn.LSTM(dim, dim) if layers > 1 else None
        self.dropout = nn.Dropout(dropout)
        self._initialize()

    def _initialize(self) -> None:
        for lstm in filter(None, (self.lstm, self.top)):
            for input_weight, recurrent_weight, *biases in lstm.all_weights:
                nn.init.xavier_uniform_(input_weight)
                nn.init.orthogonal_(recurrent_weight)
                for bias in biases:
                    nn.init.zeros_(bias)

    def weights_by_layer(self) -> list[list[nn.Parameter]]:
        """Return the weights of each layer of the LSTM, from the input to the output."""
        return [layer for lstm in (self.lstm, self.top) if lstm is not None for layer in lstm.all_weights]

    def encode_lower_layers(self, ehr: PackedSequence, stay: Tensor, hours: Tensor) -> HourlyStates:
        """Map packed hours [sum of hours, channels] to the samples' hidden states below the last layer.

        stay, hours: as in HourlyStates.of_prefixes.
        """
        return HourlyStates.of_prefixes(run_lstm(self.lstm, ehr)[0], stay, hours)

    def encode_top_layer(self, hours: HourlyStates) -> Tensor:
        """Return the features [B, feature_dim], float32, of what `encode_lower_layers` returned."""
        last = hours.last() if self.top is None else self._run_top(self.top, hours.packed())[1]
        return self.finish(last)

    def forward(self, ehr: PackedSequence) -> Tensor:
        """Map packed hours [sum of hours, channels] to features [B, feature_dim], float32."""
        states, last = run_lstm(self.lstm, ehr)
        return self.finish(last if self.top is None else self._run_top(self.top, states)[1])

    def finish(self, states: Tensor) -> Tensor:
        """Apply dropout to the features [B, feature_dim]."""
        feature: Tensor = self.dropout(states)
        return feature

    def states(self, ehr: PackedSequence) -> PackedSequence:
        """Map packed hours [sum of hours, channels] to the last layer's states, float32."""
        states = run_lstm(self.lstm, ehr)[0]
        return states if self.top is None else self._run_top(self.top, states)[0]

    def _run_top(self, top: nn.LSTM, states: PackedSequence) -> tuple[PackedSequence, Tensor]:
        return run_lstm(top, states._replace(data=self.dropout(states.data)))
