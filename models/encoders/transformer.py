"""A causal transformer over the hours of a stay."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import channel_count
from models.encoders.attention import attend_to_earlier
from models.encoders.ehr import CausalEncoder
from models.encoders.hours import Blocks
from utils.device import to_device

HEADS = 4
LONGEST_WAVE = 10_000  # of the positions, in hours, divided by 2 pi


class TransformerEncoder(CausalEncoder):
    """A transformer over hourly bins in which an hour attends to itself and to earlier hours alone.

    Each hour is a token: a linear layer on its channels, and the sinusoids of its number (Vaswani et al.
    2017). Layers are pre-norm, with feed-forward layers of four times the width; dropout acts on what each
    part of a layer adds. The feature is the layer norm of the last hour's token.

    Width 64 and 2 layers are those of SLICES; 4 heads and dropout 0.1 those of HiRID-ICU-Benchmark for
    mortality (Yeche et al. 2021).
    """

    def __init__(self, dim: int = 64, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        if dim % (2 * HEADS):
            raise ValueError(f"--ehr_dim {dim}: transformer has {HEADS} heads; use a multiple of {2 * HEADS}")
        self.feature_dim = dim
        self.embed = nn.Linear(channel_count(), dim)
        self.layers = nn.ModuleList(Layer(dim, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        waves = torch.arange(0, dim, 2) * (-math.log(LONGEST_WAVE) / dim)
        self.register_buffer("frequencies", waves.exp(), persistent=False)

    frequencies: Tensor

    def states(self, ehr: PackedSequence) -> PackedSequence:
        """Map packed hours [sum of hours, channels] to states [sum of hours, dim], float32."""
        blocks = Blocks.of_hours(ehr)
        tokens = self.dropout(self.embed(ehr.data) + self._positions(ehr))
        for layer in self.layers:
            tokens = layer(tokens, blocks)
        return ehr._replace(data=self.norm(tokens.to(self.frequencies.dtype)))

    def weights_by_layer(self) -> list[list[nn.Parameter]]:
        """Return the weights of the embedding, and of each layer; the last norm is of the last one."""
        layers = [list(layer.parameters()) for layer in (self.embed, *self.layers)]
        return [*layers[:-1], [*layers[-1], *self.norm.parameters()]]

    def _positions(self, ehr: PackedSequence) -> Tensor:
        """Return sinusoids [sum of hours, dim] of the number of each packed hour."""
        hour = torch.arange(len(ehr.batch_sizes)).repeat_interleave(ehr.batch_sizes)
        angles = to_device(hour, ehr.data.device)[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Layer(nn.Module):
    """Causal self-attention, then a feed-forward layer, each of normalized tokens and added to them."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, blocks: Blocks) -> Tensor:
        """Map packed tokens [N, dim] to [N, dim]."""
        query, key, value = self.query_key_value(self.attention_norm(tokens)).chunk(3, dim=1)
        tokens = tokens + self.dropout(self.output(attend_to_earlier(blocks, query, key, value, HEADS)))
        output: Tensor = tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))
        return output
