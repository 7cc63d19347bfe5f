"""Attention and feed-forward layers that several fusions share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention of queries to keys of any width; a quarter of `dim` is the width of a head.

    `temperature` divides the scores.
    """

    def __init__(
        self, dim: int, key_dim: int | None = None, heads: int = 4, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.heads = heads
        head_dim = max(dim // heads, 1)
        self.scale = head_dim**-0.5 / temperature
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(key_dim or dim, 2 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, present: Tensor | None = None) -> Tensor:
        """Map queries [B, Q, dim] to [B, Q, dim], by keys [B, K, key_dim] of which some are present [B, K].

        Each sample needs a key that is present.
        """
        query = self._split(self.query(queries))
        key, value = (self._split(part) for part in self.key_value(keys).chunk(2, dim=-1))
        mask = None if present is None else present[:, None, None, :]
        mixed: Tensor = functional.scaled_dot_product_attention(query, key, value, mask, scale=self.scale)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def _split(self, tokens: Tensor) -> Tensor:
        heads: Tensor = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads


class FeedForward(nn.Sequential):
    """Linear to `multiple` times the width, GELU, and back."""

    def __init__(self, dim: int, multiple: int = 4, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(dim, multiple * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(multiple * dim, dim)
        )


class SelfAttentionLayer(nn.Module):
    """A layer of a transformer encoder: attention and feed-forward, each after a layer norm and residual."""

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(dim)
        self.feed_forward = FeedForward(dim, dropout=dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Map tokens [B, K, dim], of which some are present [B, K], to [B, K, dim]."""
        normal = self.attention_norm(tokens)
        tokens = tokens + self.dropout(self.attention(normal, normal, present))
        output: Tensor = tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))
        return output
