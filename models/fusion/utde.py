"""UTDE: irregular and imputed series, mixed by a gate, and cross-attention (Zhang et al., ICML 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from datasets.schema import Batch, variables
from models.encoders import Encoder
from models.fusion.attention import Attention, SelfAttentionLayer
from models.fusion.base import Fusion, Hours, raw_hours
from models.fusion.settings import UTDESettings

HOURS = 48.0  # unit of time
TIME_DIM = 64  # of a time's embedding: one linear feature and 63 sines


class TimeEmbedding(nn.Module):
    """Times [...] to [..., 64]: one linear feature and sines of 63 others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, TIME_DIM)

    def forward(self, times: Tensor) -> Tensor:
        """Embed times in units of 48 hours."""
        features = self.linear(times[..., None])
        return torch.cat([features[..., :1], features[..., 1:].sin()], dim=-1)


class TimeAttention(nn.Module):
    """mTAND: the mean of a series around each step, by attention of times to times (Shukla & Marlin 2021)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = TimeEmbedding()
        width = heads * (TIME_DIM // heads)
        self.query, self.key = nn.Linear(TIME_DIM, width), nn.Linear(TIME_DIM, width, bias=False)

    def scores(self, steps: Tensor, times: Tensor) -> Tensor:
        """Return the scores of times [B, T] at steps [B, R], [B, heads, R, T]."""
        query, key = (
            layer(self.embed(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, steps), (self.key, times))
        )
        scores: Tensor = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return scores

    def forward(
        self, steps: Tensor, times: Tensor, values: Tensor, observed: Tensor, present: Tensor
    ) -> Tensor:
        """Return the means of series at R steps, [B, R, heads x C]; 0 for one that was never observed.

        steps: [B, R]; times: [B, T]; values: [B, T, C]; observed: [B, T, C], 1 where a value counts; present:
        bool [B, T], False where nothing does. Each series has a softmax of its own, over the times when it
        was observed.
        """
        scores = self.scores(steps, times).masked_fill(~present[:, None, None], -math.inf)
        weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
        weighted = weights @ (values * observed)[:, None]
        total = weights @ observed[:, None]
        return (weighted / total.clamp(min=1e-6)).transpose(1, 2).flatten(2)


class CrossLayer(nn.Module):
    """Self-attention in two series, then attention of each to the other."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.own = nn.ModuleList(SelfAttentionLayer(dim, dropout) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.cross = nn.ModuleList(Attention(dim) for _ in range(2))

    def forward(self, series: list[Tensor]) -> list[Tensor]:
        """Map two series [B, R, dim] to two of the same shape."""
        series = [layer(part) for layer, part in zip(self.own, series, strict=True)]
        first, second = (norm(part) for norm, part in zip(self.norms, series, strict=True))
        return [series[0] + self.cross[0](first, second), series[1] + self.cross[1](second, first)]


class UTDE(Fusion):
    """Two series of R steps, one for each modality; their last steps are classified.

    With D the width of the EHR feature. The EHR's series [B, R, D] is g M + (1 - g) C, where M is mTAND of
    the observed values and of their masks, C a convolution of the imputed hours, taken at the nearest hour,
    and g = sigmoid(MLP([M; C])) for each sample, step and feature. The image's series is a v + (1 - a) u: v
    [D] is its feature, u [D] a learned vector, and a = sigmoid(q(step) k(time of the image) / sqrt(d) -
    learned number) at each step. Then self-attention and cross-attention, and two layers with a residual. No
    loss of its own.

    Without an image a is zero: the series is the learned vector at every step.

    Other than in the paper, the second modality is one image, not notes; so mTAND has one key besides the
    learned vector, without which the softmax would be 1 at each step and the time without influence, as in
    the published code that papers compare with. That code also has neither gate nor mTAND for the EHR.
    """

    title = "UTDE"
    published_like = "utde"
    encoded: ClassVar[tuple[str, ...]] = ("cxr",)
    settings = UTDESettings

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: UTDESettings) -> None:
        super().__init__(encoders)
        dim, dropout = encoders["ehr"].feature_dim, settings.utde_dropout
        self.steps = settings.utde_steps
        self.widths = [variable.width for variable in variables()]
        values, masks = sum(self.widths), len(self.widths)
        self.time_attention = TimeAttention(settings.utde_heads)
        self.irregular = nn.Linear(settings.utde_heads * (values + masks), dim)
        self.imputed = nn.Conv1d(values, dim, 3, padding=1)
        self.gate = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.Sigmoid())
        self.image_time = TimeAttention(1)
        self.image_value = nn.Linear(encoders["cxr"].feature_dim, dim)
        self.no_image = nn.ParameterDict(
            {"value": nn.Parameter(0.02 * torch.randn(dim)), "score": nn.Parameter(torch.zeros(()))}
        )
        self.layers = nn.ModuleList(CrossLayer(dim, dropout) for _ in range(settings.utde_layers))
        self.residual = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * dim, 2 * dim)
        )
        self.linear = nn.Linear(2 * dim, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        hours = raw_hours(batch)
        step = torch.arange(self.steps, device=hours.values.device) / self.steps
        steps = (hours.lengths[:, None] * step).to(hours.values.dtype)  # in hours, [B, R]
        series = [self.ehr_series(hours, steps), self.image_series(batch, hours, steps)]
        for layer in self.layers:
            series = layer(series)
        last = torch.cat([part[:, -1] for part in series], dim=1)
        logits: Tensor = self.linear(last + self.residual(last))
        return logits

    def ehr_series(self, hours: Hours, steps: Tensor) -> Tensor:
        """Return the series of the EHR at steps [B, R] in hours, [B, R, D]."""
        values, masks = hours.values.tensor_split([sum(self.widths)], dim=2)
        is_observed = (masks > 0.5).to(values.dtype)
        observed = torch.cat(
            [
                is_observed[..., index : index + 1].expand(-1, -1, width)
                for index, width in enumerate(self.widths)
            ],
            dim=2,
        )
        times = torch.arange(values.shape[1], device=values.device).expand(len(values), -1)
        irregular = self.irregular(
            self.time_attention(
                steps / HOURS,
                times.to(values.dtype) / HOURS,
                hours.values,
                torch.cat([observed, torch.ones_like(masks)], dim=2),
                hours.present(),
            )
        )
        imputed = self.imputed(values.transpose(1, 2)).transpose(1, 2)
        imputed = imputed.gather(1, steps.long()[..., None].expand(-1, -1, imputed.shape[2]))
        gate = self.gate(torch.cat([irregular, imputed], dim=-1))
        series: Tensor = gate * irregular + (1 - gate) * imputed
        return series

    def image_series(self, batch: Batch, hours: Hours, steps: Tensor) -> Tensor:
        """Return the series of the image at steps [B, R] in hours, [B, R, D]."""
        value = self.encode_cxr(batch, self.image_value)
        taken = hours.lengths - 24 * batch.gap_days.nan_to_num(0.0)  # in hours
        scores = self.image_time.scores(steps / HOURS, taken.to(steps.dtype)[:, None] / HOURS)  # [B, 1, R, 1]
        weight = (scores[:, 0] - self.no_image["score"]).sigmoid() * batch.has_cxr[:, None, None]
        series: Tensor = weight * value[:, None] + (1 - weight) * self.no_image["value"]
        return series
