"""STraTS: a transformer over triplets of time, variable and value (Tipirneni & Reddy 2022)."""

import math

import torch
from torch import Tensor, nn

from datasets.schema import Batch, RecordNeeds, Triplets, variables
from models.encoders.attention import LOWEST, attend_to_all
from models.encoders.ehr import EHREncoder
from models.encoders.hours import Blocks
from models.encoders.triplets import sample_rows
from utils.device import to_device

MOST_TRIPLETS = 880  # that a sample reads: the last ones
HEADS = 16


class STraTSEncoder(EHREncoder):
    """A transformer over the observations of a sample at their exact times (TKDD 2022).

    A triplet is the sum of three embeddings: of its time, scaled to -1 to 1 from ICU admission to the end of
    the sample; of its value; and of its channel. Each category is a channel, with the value 1. Two layers
    attend to all triplets of the sample; then a weighted mean over the triplets is the feature. In training,
    the observations of a variable are left out together with the probability of dropout.

    Widths are those of the published code (sindhura97/STraTS): 64, 2 layers, 16 heads, dropout 0.2. Unlike
    there, a sample has no demographic data, its window has any length, and a head leaves out a triplet for
    all others instead of for each. Samples with more than 880 triplets, the published limit, read the last.
    """

    needs = RecordNeeds(triplets=True)

    def __init__(self, dim: int = 64, layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        if dim % HEADS:
            raise ValueError(f"--ehr_dim {dim}: strats has {HEADS} heads; use a multiple of {HEADS}")
        self.feature_dim = dim
        self.time, self.value = ValueEmbedding(dim), ValueEmbedding(dim)
        self.channel = nn.Embedding(variables()[0].mask_channel, dim)
        self.layers = nn.ModuleList(Layer(dim, dropout) for _ in range(layers))
        self.weights = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        of_channel = [index for index, variable in enumerate(variables()) for _ in range(variable.width)]
        self.register_buffer("variable", torch.tensor(of_channel), persistent=False)
        self._initialize()

    variable: Tensor

    def _initialize(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def sample_features(self, batch: Batch) -> Tensor:
        """Return the features [B, dim] of B samples."""
        assert batch.triplets is not None, "a batch has what its encoder needs"
        features: Tensor = self(batch.triplets)
        return features

    def forward(self, triplets: Triplets) -> Tensor:
        """Map the triplets of B samples to features [B, dim], float32; 0 for a sample without triplets."""
        device = triplets.value.device
        rows, lengths = sample_rows(triplets, MOST_TRIPLETS)
        sample = to_device(torch.arange(len(lengths)).repeat_interleave(lengths), device)
        read = to_device(rows, device)
        hours, value, channel = (part[read] for part in (triplets.hours, triplets.value, triplets.channel))
        kept = self._draw_kept(channel, sample, len(lengths))
        time = 2 * hours / triplets.end.clamp(min=1 / 3600)[sample] - 1
        tokens: Tensor = self.dropout(self.time(time) + self.value(value) + self.channel(channel))
        if not len(rows):
            nothing = torch.stack([0 * weight.sum() for weight in self.parameters()]).sum()
            return tokens.new_zeros(len(lengths), self.feature_dim) + nothing
        blocks = Blocks.of_lengths(lengths.numpy(), device)
        for layer in self.layers:
            tokens = layer(tokens, blocks, kept)
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        share = blocks.apply(_softmax, kept[:, None], self.weights(tokens).to(tokens.dtype))
        return tokens.new_zeros(len(lengths), self.feature_dim).index_add(0, sample, share * tokens)

    def weights_by_layer(self) -> list[list[nn.Parameter]]:
        """Return the weights of the embeddings, and of each layer; those of the mean are of the last one."""
        embeddings = [w for part in (self.time, self.value, self.channel) for w in part.parameters()]
        layers = [list(layer.parameters()) for layer in self.layers]
        return [embeddings, *layers[:-1], [*layers[-1], *self.weights.parameters()]]

    def _draw_kept(self, channel: Tensor, sample: Tensor, samples: int) -> Tensor:
        """Return which triplets are read, bool [N]: in training, not those of variables that are left out."""
        if not self.training or not self.dropout.p:
            return torch.ones_like(channel, dtype=torch.bool)
        is_kept = torch.rand(samples, len(variables()), device=channel.device) >= self.dropout.p
        return is_kept[sample, self.variable[channel]]


def _softmax(in_block: Tensor, kept: Tensor, scores: Tensor) -> Tensor:
    """Return the softmax [S, T, 1] over the triplets that are kept; over all if none is."""
    absent = torch.where(in_block[..., None], torch.where(kept, 0.0, LOWEST), 2 * LOWEST)
    return (scores + absent).softmax(dim=1)


class ValueEmbedding(nn.Module):
    """The embedding of a number, [N] -> [N, dim]: a layer of sqrt(dim) units, tanh, a layer without bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = math.isqrt(dim)
        self.layers = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, dim, bias=False))

    def forward(self, numbers: Tensor) -> Tensor:
        """Map numbers [N] to [N, dim]."""
        embedding: Tensor = self.layers(numbers[:, None])
        return embedding


class Layer(nn.Module):
    """Attention, then a feed-forward layer; each is averaged with what it reads, nothing is normalized."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.feed_forward = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, blocks: Blocks, kept: Tensor) -> Tensor:
        """Map packed tokens [N, dim], of which some are read, bool [N], to [N, dim]."""
        query, key, value = self.query(tokens), self.key(tokens), self.value(tokens)
        dropout = self.dropout.p if self.training else 0.0
        mixed = attend_to_all(blocks, query, key, value, kept, HEADS, dropout)
        tokens = (self.dropout(self.output(mixed)) + tokens) / 2
        output: Tensor = (self.dropout(self.feed_forward(tokens)) + tokens) / 2
        return output
