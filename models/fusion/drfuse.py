"""DrFuse: features that both modalities share or not, and attention by class (Yao et al., AAAI 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import Supervision
from models.fusion.losses import (
    attention_ranking,
    global_mean,
    jensen_shannon,
    label_entropies,
    mean_entropy,
    soft_or,
)
from models.fusion.projected import ProjectedFusion
from models.fusion.settings import DrFuseSettings


class Tokens(NamedTuple):
    """The features of B samples, [B, D] each: shared and distinct ones of both modalities, and the pool.

    Without an image `pooled` is the EHR's shared feature, and the image's features are not to be used.
    """

    ehr_shared: Tensor
    ehr: Tensor
    cxr_shared: Tensor
    cxr: Tensor
    pooled: Tensor

    def stack(self) -> Tensor:
        """Return the tokens of the attention, [B, 3, D]: EHR, pooled, image."""
        return torch.stack([self.ehr, self.pooled, self.cxr], dim=1)


class DrFuse(ProjectedFusion):
    """Attention of each class to three tokens: the EHR's own feature, the shared one, the image's own.

    With D the width of the EHR feature and C outputs: two layers for each modality give a shared and a
    distinct feature, [B, D] each. A network for both modalities (D - 2D - D - D) maps the shared ones a, b
    into one space; their pool is log(2 e^(a+b) + e^a + e^b) - log(2 + e^a + e^b), elementwise. The query of a
    sample is the mean of its tokens' queries; there is a key for each class, so that softmax(q k / sqrt(D))
    is [B, C, 3]; a class's logit is linear in its weighted values, [B, C, D].

    Losses: cross-entropies of each token alone; the Jensen-Shannon divergence of the shared features; the
    absolute cosines of shared and distinct ones; attention_ranking. Those of images are means over the
    samples that have one.

    Without an image: the pool is the EHR's shared feature, and the image's token has no attention.

    Other than in the paper, both features of an image come from one encoder, which halves the time, and those
    of the EHR from the LSTM, so that any encoder serves. Other than in the published code, the divergence
    leaves out absent images, and the ranking is by class, not of averages over them.
    """

    title = "DrFuse"
    data_pairs = "partial"
    published_like = "drfuse"
    settings = DrFuseSettings
    learns_from_labels = True

    def __init__(
        self, encoders: Mapping[str, Encoder], outputs: int, kind: str, settings: DrFuseSettings
    ) -> None:
        super().__init__(encoders)
        dim = self.feature_dim
        self.kind, self.weights = kind, settings
        names = ("ehr_shared", "ehr", "cxr_shared", "cxr")
        self.features = nn.ModuleDict({name: nn.Linear(dim, dim) for name in names})
        self.shared_space = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )
        self.dropout = nn.Dropout(settings.drfuse_dropout)
        self.attention = nn.Linear(dim, (2 + outputs) * dim)
        self.values_to_logits = nn.Linear(dim, outputs)
        self.token_logits = nn.ModuleDict(
            {name: nn.Linear(dim, outputs) for name in ("ehr", "pooled", "cxr")}
        )

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        return self.attend(self.tokens(batch), batch.has_cxr)[0]

    def supervise(self, batch: Batch) -> Supervision:
        """Return the logits, and the losses that the class describes."""
        tokens, weights, present = self.tokens(batch), self.weights, batch.has_cxr
        logits, attention = self.attend(tokens, present)
        token_logits = {name: layer(getattr(tokens, name)) for name, layer in self.token_logits.items()}
        everyone = torch.ones_like(present)
        cosines = {
            name: functional.cosine_similarity(getattr(tokens, f"{name}_shared"), getattr(tokens, name)).abs()
            for name in ("ehr", "cxr")
        }
        divergence = jensen_shannon(tokens.ehr_shared, tokens.cxr_shared)
        losses = {
            "shared": weights.drfuse_shared * global_mean(divergence, present),
            "disentangle_ehr": weights.drfuse_ehr * global_mean(cosines["ehr"], everyone),
            "disentangle_cxr": weights.drfuse_cxr * global_mean(cosines["cxr"], present),
            "pred_ehr": weights.drfuse_pred_ehr * mean_entropy(token_logits["ehr"], batch.labels, self.kind),
            "pred_cxr": weights.drfuse_pred_cxr
            * mean_entropy(token_logits["cxr"], batch.labels, self.kind, present),
            "pred_shared": weights.drfuse_pred_shared
            * mean_entropy(token_logits["pooled"], batch.labels, self.kind),
            "attention": weights.drfuse_attention * self.ranking(attention, token_logits, batch),
        }
        return Supervision(logits, losses)

    def tokens(self, batch: Batch) -> Tokens:
        """Return the features of a batch."""
        ehr, image = map(self.dropout, self.both(batch))
        ehr_shared = self.shared_space(self.features["ehr_shared"](ehr).relu())
        cxr_shared = self.shared_space(self.features["cxr_shared"](image).relu())
        pooled = torch.where(batch.has_cxr[:, None], soft_or(ehr_shared, cxr_shared), ehr_shared)
        return Tokens(ehr_shared, self.features["ehr"](ehr), cxr_shared, self.features["cxr"](image), pooled)

    def attend(self, tokens: Tokens, has_cxr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [B, C], and the attention of each class to the three tokens, [B, C, 3]."""
        parts = self.attention(tokens.stack()).unflatten(-1, (-1, self.feature_dim))  # [B, 3, 2 + C, D]
        queries, values, keys = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2:]
        absent = ~has_cxr[:, None] & (torch.arange(3, device=has_cxr.device) == 2)  # [B, 3]
        query = queries.masked_fill(absent[..., None], 0.0).sum(dim=1) / (~absent).sum(dim=1)[:, None]
        scores = torch.einsum("bd,btcd->bct", query, keys) / math.sqrt(self.feature_dim)
        attention = scores.masked_fill(absent[:, None], -math.inf).softmax(dim=-1)
        mixed = torch.einsum("bct,btd->bcd", attention, values)
        weight, bias = self.values_to_logits.weight, self.values_to_logits.bias
        return torch.einsum("bcd,cd->bc", mixed, weight) + bias, attention

    def ranking(self, attention: Tensor, token_logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the ranking loss of the samples that have an image; an ordinal task has one rank for all."""
        pairs = [label_entropies(logits, batch.labels, self.kind) for logits in token_logits.values()]
        entropies = torch.stack([entropy for entropy, _ in pairs], dim=-1)  # [B, L, 3]
        valid = pairs[0][1] & batch.has_cxr[:, None]
        classes = attention.shape[1]
        return attention_ranking(attention, entropies.expand(-1, classes, -1), valid.expand(-1, classes))
