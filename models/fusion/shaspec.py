"""ShaSpec: one shared and one specific feature for each modality (Wang et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.attention import FeedForward
from models.fusion.base import Supervision
from models.fusion.losses import global_mean
from models.fusion.projected import ProjectedFusion
from models.fusion.settings import ShaSpecSettings


class ShaSpec(ProjectedFusion):
    """The mean of both modalities' features, each a shared and a specific one; then two layers.

    With D the width of the EHR feature: shared [B, D] comes from one network for both modalities, to whose
    input a vector for the modality is added; specific [B, D] from one network each. A modality's feature is
    shared + Linear([shared; specific]), a residual.

    Losses: alpha times the mean absolute difference of the shared features, of samples that have both; beta
    times the cross-entropy of a linear classifier that tells the modality from the specific feature.

    Without an image, the EHR's shared feature takes the place of the image's feature.

    Other than in the paper, the networks read the features of the encoders, not hours and pixels, so that any
    encoder serves and no image is encoded twice; X-rays are not dropped at random (see --drop_cxr). Other
    than in the published code that papers compare with, the modality is predicted from the specific features,
    not the shared ones, which works against alpha; absent images have no loss; and no loop runs over samples.
    """

    title = "ShaSpec"
    data_pairs = "partial"
    published_like = "shaspec"
    settings = ShaSpecSettings

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: ShaSpecSettings) -> None:
        super().__init__(encoders)
        dim, dropout = self.feature_dim, settings.shaspec_dropout
        self.alpha, self.beta = settings.shaspec_alpha, settings.shaspec_beta
        self.modality = nn.Embedding(2, dim)
        self.shared = nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, dropout=dropout))
        self.specific = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, dropout=dropout)) for _ in range(2)
        )
        self.residual = nn.Linear(2 * dim, dim)
        self.domain = nn.Linear(dim, 2)
        hidden = max(dim // 2, 1)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        return self.classify(*self.shared_and_specific(batch), batch.has_cxr)

    def supervise(self, batch: Batch) -> Supervision:
        """Return the logits, and the losses "shared" and "domain"."""
        shared, specific = self.shared_and_specific(batch)
        present = torch.stack([torch.ones_like(batch.has_cxr), batch.has_cxr])
        modality = torch.arange(2, device=shared.device)[:, None].expand_as(present)
        entropies = functional.cross_entropy(
            self.domain(specific).flatten(0, 1).float(), modality.flatten(), reduction="none"
        )
        distance = (shared[0] - shared[1]).abs().mean(dim=1)
        losses = {
            "shared": self.alpha * global_mean(distance, batch.has_cxr),
            "domain": self.beta * global_mean(entropies, present.flatten()),
        }
        return Supervision(self.classify(shared, specific, batch.has_cxr), losses)

    def shared_and_specific(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the shared and the specific features of EHR and image, [2, B, D] x 2."""
        features = torch.stack(self.both(batch))
        shared = self.shared(features + self.modality.weight[:, None])
        specific = torch.stack([part(x) for part, x in zip(self.specific, features, strict=True)])
        return shared, specific

    def classify(self, shared: Tensor, specific: Tensor, has_cxr: Tensor) -> Tensor:
        """Map shared and specific features [2, B, D] to logits [B, outputs]."""
        ehr, image = shared + self.residual(torch.cat([shared, specific], dim=-1))
        image = torch.where(has_cxr[:, None], image, shared[0])
        logits: Tensor = self.classifier((ehr + image) / 2)
        return logits
