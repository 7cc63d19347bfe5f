"""HEALNet: latents that read one modality after the other (Hemker et al., NeurIPS 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.schema import Batch, channel_count
from models.encoders import CXREncoder, Encoder
from models.fusion.attention import Attention
from models.fusion.base import Fusion, raw_hours
from models.fusion.settings import HEALNetSettings
from models.rows import take_rows

PATCH = 32  # side of a patch, in pixels


def fourier_features(positions: Tensor, bands: int, max_frequency: float) -> Tensor:
    """Describe positions in [-1, 1], [...] -> [..., 2 bands + 1].

    They are the position, and sine and cosine of pi f position for frequencies f from 1 to max_frequency / 2.

    >>> fourier_features(torch.tensor([0.0]), bands=1, max_frequency=10.0)
    tensor([[0., 0., 1.]])
    """
    frequencies = torch.linspace(
        1.0, max_frequency / 2, bands, dtype=positions.dtype, device=positions.device
    )
    angles = math.pi * positions[..., None] * frequencies
    return torch.cat([positions[..., None], angles.sin(), angles.cos()], dim=-1)


class GatedFeedForward(nn.Module):
    """Linear to eight times the width, half of it times SELU of the other half, and back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.first = nn.Linear(dim, 8 * dim)
        self.second = nn.Linear(4 * dim, dim)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents [..., dim] to the same shape, residual."""
        value, gate = self.first(self.norm(latents)).chunk(2, dim=-1)
        output: Tensor = latents + self.second(value * functional.selu(gate))
        return output


class Read(nn.Module):
    """Attention of the latents to tokens, or to themselves, and a feed-forward part; both residual."""

    def __init__(self, dim: int, token_dim: int | None, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.token_norm = None if token_dim is None else nn.LayerNorm(token_dim)
        self.attention = Attention(dim, token_dim, temperature=0.5)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = GatedFeedForward(dim)

    def forward(self, latents: Tensor, tokens: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Return latents [B, L, dim] after they read tokens [B, K, token_dim], some present [B, K]."""
        normal = self.norm(latents)
        keys = normal if tokens is None or self.token_norm is None else self.token_norm(tokens)
        read = functional.leaky_relu(self.attention(normal, keys, present), 0.01)
        output: Tensor = self.feed_forward(latents + self.dropout(read))
        return output


class HEALNet(Fusion):
    """Learned latents read the hours, then the image, then themselves; their mean is classified.

    With D the width of the EHR feature, L latents [B, L, D]. Tokens: an hour's channels and the Fourier
    features of its position in the stay, [B, T, channels + 2F + 1]; for the image, --healnet_tokens and
    those of both positions, [P, K, C + 2 (2F + 1)]. Each reading is cross-attention (scores divided by a
    temperature of 0.5) and a gated feed-forward part, with residuals. No loss of its own.

    Without an image its reading is skipped, as the paper says; the published code that papers compare with
    reads a black image instead.

    Other than in the paper, the tokens of an image are by default the 49 positions of the image encoder's
    last maps instead of 50,176 pixels: it costs a thousandth, and the encoder can be a pretrained one.
    """

    title = "HEALNet"
    data_pairs = "partial"
    published_like = "healnet"
    encoded: ClassVar[tuple[str, ...]] = ("cxr",)
    settings = HEALNetSettings
    intermediate = True
    cxr_encoder: CXREncoder

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: HEALNetSettings) -> None:
        nn.Module.__init__(self)
        self.tokens, self.chosen = settings.healnet_tokens, settings
        if self.tokens == "features":
            self.cxr_encoder = encoders["cxr"]  # type: ignore[assignment]
        dim, positions = encoders["ehr"].feature_dim, 2 * settings.healnet_bands + 1
        of_image = {"features": encoders["cxr"].feature_dim, "patches": PATCH**2, "pixels": 1}[self.tokens]
        dropout = settings.healnet_dropout
        self.latents = nn.ParameterDict(
            {"start": nn.Parameter(0.02 * torch.randn(settings.healnet_latents, dim))}
        )
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ehr": Read(dim, channel_count() + positions, dropout),
                    "image": Read(dim, of_image + 2 * positions, dropout),
                    "latents": Read(dim, None, dropout),
                }
            )
            for _ in range(settings.healnet_depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        hours, present = self.hour_tokens(batch)
        image = self.image_tokens(batch).index_select(0, batch.image.index_select(0, batch.paired))
        place = torch.where(batch.has_cxr, batch.has_cxr.cumsum(0) - 1, -1)
        latents = self.latents["start"].expand(len(hours), -1, -1)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            latents = layer["ehr"](latents, hours, present)
            read = layer["image"](latents.index_select(0, batch.paired), image)
            read = take_rows(read, place)
            latents = layer["latents"](torch.where(batch.has_cxr[:, None, None], read, latents))
        logits: Tensor = self.linear(self.norm(latents.mean(dim=1)))
        return logits

    def hour_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the tokens of the hours, [B, T, channels + 2F + 1], and which are no padding, [B, T]."""
        hours = raw_hours(batch)
        count = torch.arange(hours.values.shape[1], device=hours.values.device)
        position = 2 * count / (hours.lengths[:, None] - 1).clamp(min=1) - 1
        tokens = torch.cat([hours.values, self._describe(position.to(hours.values.dtype))], dim=-1)
        return tokens, hours.present()

    def image_tokens(self, batch: Batch) -> Tensor:
        """Return the tokens of the P images, [P, K, C + 2 (2F + 1)]."""
        assert batch.cxr is not None, "a batch has the modalities of its fusion"
        if self.tokens == "features":
            maps = self.cxr_encoder.maps(batch.cxr)
        elif self.tokens == "patches":
            side = batch.cxr.shape[-1] // PATCH
            maps = functional.unfold(batch.cxr, PATCH, stride=PATCH).unflatten(2, (side, side))
        else:
            maps = batch.cxr
        rows, columns = (
            torch.linspace(-1.0, 1.0, size, dtype=maps.dtype, device=maps.device) for size in maps.shape[2:]
        )
        grid = torch.cat(
            [
                self._describe(rows)[:, None].expand(-1, len(columns), -1),
                self._describe(columns)[None].expand(len(rows), -1, -1),
            ],
            dim=-1,
        ).flatten(0, 1)
        tokens = maps.flatten(2).transpose(1, 2)
        return torch.cat([tokens, grid.expand(len(tokens), -1, -1)], dim=-1)

    def _describe(self, positions: Tensor) -> Tensor:
        return fourier_features(positions, self.chosen.healnet_bands, self.chosen.healnet_max_frequency)
