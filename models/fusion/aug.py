"""AUG: the weaker modality gets further layers (Jiang et al. 2025, "Rethinking multimodal learning")."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import BranchLogits, Fusion, Supervision
from models.fusion.losses import boosted, global_mean, global_sum, label_entropies
from models.fusion.settings import AUGSettings


class Boosting(nn.Module):
    """How many layers both modalities have got, and how well they did in this epoch, as buffers."""

    added: Tensor
    scores: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("added", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("scores", torch.zeros(2))


class AUG(Fusion):
    """The weighted sum of the logits of both modalities, each the sum of its layers' logits.

    With D the width of the EHR feature: a layer is Linear to D and ReLU, then an output layer that all layers
    of both modalities share. At the end of every T-th epoch, from the first on, r is the sum of the
    probabilities of the true labels by the EHR, divided by that by the image, over samples that have both.
    Above lambda + delta the image gets a layer, below lambda - delta the EHR.

    Losses: the cross-entropy of each modality alone; for a modality with added layers also that of its layers
    but the last, and `boosted` of the last one. Those of images are over the samples that have one.

    Without an image, the logits are the EHR's.

    All layers that can be added exist from the start, so that the optimiser and a checkpoint have them; they
    count, and learn, once they are added. In the published code that papers compare with they are made after
    the optimiser, and never trained. Other than in the paper, both modalities take one step together; and the
    last layer's target is bounded: cross-entropy minus half of that with target y p falls without a limit for
    y = 1, so the target is y (1 - p / 2).
    """

    title = "AUG"
    published_like = "aug"
    settings = AUGSettings
    learns_from_labels = True

    def __init__(
        self, encoders: Mapping[str, Encoder], outputs: int, kind: str, settings: AUGSettings
    ) -> None:
        super().__init__(encoders)
        dim = encoders["ehr"].feature_dim
        self.kind, self.chosen, count = kind, settings, 1 + settings.aug_layers
        self.ehr_layers = nn.Linear(dim, count * dim)
        self.cxr_layers = nn.Linear(encoders["cxr"].feature_dim, count * dim)
        self.linear = nn.Linear(dim, outputs)
        self.boosting = Boosting()

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        layers = self.layer_logits(batch)
        return self.mix((layers * self.is_used(layers, 0)).sum(dim=2), batch.has_cxr)

    def mix(self, logits: Tensor, has_cxr: Tensor) -> Tensor:
        """Mix the logits of both modalities, [2, B, outputs] -> [B, outputs]."""
        ehr, image = logits
        mixed = self.chosen.aug_alpha * ehr + (1 - self.chosen.aug_alpha) * image
        return torch.where(has_cxr[:, None], mixed, ehr)

    def supervise(self, batch: Batch) -> Supervision:
        """Return both modalities' logits, and the losses "before" and "added"; in training, keep score."""
        layers = self.layer_logits(batch)
        both, before = ((layers * self.is_used(layers, left_out)).sum(dim=2) for left_out in (0, 1))
        valid = torch.stack([torch.ones_like(batch.has_cxr), batch.has_cxr])
        entropies = [label_entropies(logits, batch.labels, self.kind) for logits in before]
        known = torch.stack([known for _, known in entropies]) & valid[..., None]
        boosts = torch.stack(
            [
                boosted(added, earlier, batch.labels, self.kind)
                for added, earlier in zip(both - before, before, strict=True)
            ]
        )
        is_boosted = known & (self.boosting.added > 0)[:, None, None]
        losses = {
            "before": global_mean(torch.stack([entropy for entropy, _ in entropies]), is_boosted),
            "added": global_mean(boosts, is_boosted),
        }
        if self.training and torch.is_grad_enabled():
            self.keep_score(both, batch)
        return Supervision(self.mix(both, batch.has_cxr), losses, BranchLogits(both, valid))

    def layer_logits(self, batch: Batch) -> Tensor:
        """Return the logits of all layers of both modalities, [2, B, 1 + aug_layers, outputs]."""
        ehr, image = self.ehr_layers(self.encode_ehr(batch)), self.encode_cxr(batch, self.cxr_layers)
        hidden = torch.stack([ehr, image]).unflatten(-1, (1 + self.chosen.aug_layers, -1))
        logits: Tensor = self.linear(hidden.relu())
        return logits

    def is_used(self, layers: Tensor, left_out: int) -> Tensor:
        """Return which layers a modality has, but for the last ones left out; its first one always counts."""
        last = (self.boosting.added - left_out).clamp(min=0)
        return torch.arange(layers.shape[2], device=layers.device)[:, None] <= last[:, None, None, None]

    @torch.no_grad()
    def keep_score(self, logits: Tensor, batch: Batch) -> None:
        """Add the probabilities of the true labels, by both modalities, of the samples that have both."""
        for index, part in enumerate(logits):
            entropies, known = label_entropies(part, batch.labels, self.kind)
            probability = torch.where(known & batch.has_cxr[:, None], (-entropies).exp(), 0.0)
            self.boosting.scores[index] += _sum_over_processes(probability.sum())

    def end_epoch(self, epoch: int) -> None:
        """Add a layer to the weaker modality, if it is time and both are not balanced."""
        boosting, chosen = self.boosting, self.chosen
        if epoch % chosen.aug_every == 0:
            ehr, image = boosting.scores
            ehr_is_weaker = ehr < (chosen.aug_lambda - chosen.aug_delta) * image
            image_is_weaker = ehr > (chosen.aug_lambda + chosen.aug_delta) * image
            boosting.added += torch.stack([ehr_is_weaker, image_is_weaker])
            boosting.added.clamp_(max=chosen.aug_layers)
        boosting.scores.zero_()


def _sum_over_processes(total: Tensor) -> Tensor:
    with torch.enable_grad():
        return global_sum(total)
