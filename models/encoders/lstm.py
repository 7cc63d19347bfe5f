"""The LSTM over the hours of a stay, as published for MedMod."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import channel_count
from models.encoders.ehr import CausalEncoder
from models.encoders.hours import HourlyStates, stays_of_rows

CHUNK_HOURS = 16  # see _run_lstm_in_chunks
MAX_PADDING = 2  # how many times as many hours as stays have may be read on a CPU, with padding

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
    stay, _, last_row = stays_of_rows(inputs.batch_sizes)
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
