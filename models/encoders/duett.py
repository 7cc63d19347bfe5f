"""DuETT: attention over variables and over time in turn (Labach et al. 2023)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.schema import Batch, RecordNeeds, Triplets, variables
from models.encoders.ehr import EHREncoder
from models.encoders.triplets import sample_rows
from utils.device import to_device

BINS = 32  # equal parts of a sample's time
MOST_COUNTED = 15  # observations of a variable in a bin
HEADS = 2
HIDDEN = 64  # units of the embedding of a variable
FEED_FORWARD = 512
WIDEST = 64


class DuETTEncoder(EHREncoder):
    """Layers of two transformers, over the variables and over the time of a sample (MLHC 2023).

    The time from ICU admission to the end of the sample has 32 equal bins. A variable in a bin is its mean
    (of a category, its share) and a learned number for the count of observations, at most 15; a network of
    each variable maps both to an embedding of `dim`. One more bin is a token that represents the sample. In
    each layer, the variables attend to each other, each with its embeddings of all bins as one vector; then
    the bins, each with the embeddings of all variables. The feature is the token of all variables.

    Widths are those of the published code (layer6ai-labs/DuETT): embeddings of 24, 2 layers, 2 heads of half
    an embedding, 512 hidden units, dropout 0.5 as in its fine-tuning. Unlike there, samples have no static
    variables, bins no mask that hides them in training, and ScaleNorm starts at the square root of the width,
    as in its paper (Nguyen & Salazar 2019).
    """

    needs = RecordNeeds(triplets=True)

    def __init__(self, dim: int = 24, layers: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        if dim % HEADS or dim > WIDEST:
            raise ValueError(
                f"--ehr_dim {dim}: of duett it is the width of one variable in one bin; use an even number "
                f"up to {WIDEST}, or leave it out for 24"
            )
        self.dim, self.widths = dim, [variable.width for variable in variables()]
        self.feature_dim = len(self.widths) * dim
        self.counts = nn.Embedding(MOST_COUNTED + 1, 1)
        self.embeddings = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width + 1, HIDDEN), nn.ReLU(), nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, dim)
            )
            for width in self.widths
        )
        self.token = nn.Parameter(torch.randn(dim))
        of_variable, of_bin = (BINS + 1) * dim, self.feature_dim
        self.variable_embedding = nn.Parameter(torch.randn(len(self.widths), of_variable))
        self.token_embedding = nn.Parameter(torch.randn(of_bin))
        hidden = math.isqrt(of_bin)
        self.time_embedding = nn.Sequential(
            nn.Linear(1, hidden), nn.Tanh(), nn.BatchNorm1d(hidden), nn.Linear(hidden, of_bin)
        )
        self.over_variables = nn.ModuleList(Layer(of_variable, dim, dropout) for _ in range(layers))
        self.over_time = nn.ModuleList(Layer(of_bin, dim, dropout) for _ in range(layers))
        of_channel = [index for index, width in enumerate(self.widths) for _ in range(width)]
        self.register_buffer("variable", torch.tensor(of_channel), persistent=False)

    variable: Tensor

    def sample_features(self, batch: Batch) -> Tensor:
        """Return the features [B, feature_dim] of B samples."""
        assert batch.triplets is not None, "a batch has what its encoder needs"
        features: Tensor = self(batch.triplets)
        return features

    def forward(self, triplets: Triplets) -> Tensor:
        """Map the triplets of B samples to features [B, feature_dim], float32."""
        means, counts = self.bins(triplets)
        samples, counted = len(means), self.counts(counts.clamp(max=MOST_COUNTED).long())
        parts = [
            embed(torch.cat([mean, count], dim=-1).flatten(0, 1)).unflatten(0, (samples, BINS))
            for embed, mean, count in zip(
                self.embeddings, means.split(self.widths, dim=2), counted.unbind(2), strict=True
            )
        ]
        token = self.token.to(parts[0].dtype).expand(samples, 1, len(parts), -1)
        bins = torch.cat([torch.stack(parts, dim=2), token], dim=1)  # [B, BINS + 1, V, dim]
        days = triplets.end[:, None] * (torch.arange(BINS, device=means.device) + 1) / (24 * BINS)
        time = self.time_embedding(days.flatten()[:, None]).unflatten(0, (samples, BINS))
        time = torch.cat([time, self.token_embedding.to(time.dtype).expand(samples, 1, -1)], dim=1)
        for over_variables, over_time in zip(self.over_variables, self.over_time, strict=True):
            each = over_variables(bins.transpose(1, 2).flatten(2) + self.variable_embedding)
            bins = each.unflatten(2, (BINS + 1, -1)).transpose(1, 2)
            bins = over_time(bins.flatten(2) + time).unflatten(2, (len(parts), -1))
        return bins[:, -1].flatten(1).to(torch.promote_types(bins.dtype, torch.float32))

    def weights_by_layer(self) -> list[list[nn.Parameter]]:
        """Return the weights of the embeddings, and of both transformers of each layer."""
        pairs = zip(self.over_variables, self.over_time, strict=True)
        layers = [[*first.parameters(), *second.parameters()] for first, second in pairs]
        in_layers = {id(weight) for layer in layers for weight in layer}
        return [[weight for weight in self.parameters() if id(weight) not in in_layers], *layers]

    def bins(self, triplets: Triplets) -> tuple[Tensor, Tensor]:
        """Return the mean of each channel, [B, BINS, channels], and the count of each variable, [B, BINS, V].

        Means are 0 where a variable was not observed; that of a category is its share of the observations.
        """
        device, samples = triplets.value.device, len(triplets.counts)
        rows, lengths = sample_rows(triplets)
        sample = to_device(torch.arange(samples).repeat_interleave(lengths), device)
        read = to_device(rows, device)
        hours, value, channel = (part[read] for part in (triplets.hours, triplets.value, triplets.channel))
        place = (BINS * hours / triplets.end.clamp(min=1 / 3600)[sample]).long().clamp(max=BINS - 1)
        cell = sample * BINS + place
        channels, count = len(self.variable), len(self.widths)
        sums = value.new_zeros(samples * BINS * channels).index_add(0, cell * channels + channel, value)
        at = cell * count + self.variable[channel]
        counts = value.new_zeros(samples * BINS * count).index_add(0, at, torch.ones_like(value))
        shaped = counts.view(samples, BINS, count)
        means = sums.view(samples, BINS, channels) / shaped.clamp(min=1)[..., self.variable]
        return means, shaped


class ScaleNorm(nn.Module):
    """Vectors of a learned length, which starts at the square root of their width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.tensor(math.sqrt(width)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors [..., width] to the same shape."""
        return functional.normalize(vectors, dim=-1, eps=1e-5) * self.length


class Layer(nn.Module):
    """Attention of heads of half of `dim`, then a feed-forward layer, each of normalized tokens."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = ScaleNorm(width), ScaleNorm(width)
        self.query_key_value = nn.Linear(width, 3 * dim, bias=False)
        self.output = nn.Linear(dim, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, FEED_FORWARD), nn.GELU(), nn.Dropout(dropout), nn.Linear(FEED_FORWARD, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [B, K, width] to [B, K, width]."""
        parts = self.query_key_value(self.attention_norm(tokens)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        scores = (query @ key.transpose(2, 3)) / math.sqrt(query.shape[-1])
        mixed = self.dropout(scores.softmax(dim=-1)) @ value.to(scores.dtype)
        tokens = tokens + self.output(mixed.transpose(1, 2).flatten(2))
        output: Tensor = tokens + self.feed_forward(self.feed_forward_norm(tokens))
        return output
