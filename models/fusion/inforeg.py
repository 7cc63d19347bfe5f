"""InfoReg: the dominant modality's encoder is slowed down while it learns most (Huang et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import Supervision
from models.fusion.losses import global_sum, label_entropies, mean_entropy, relative_growth, slowdown
from models.fusion.projected import ProjectedFusion
from models.fusion.settings import InfoRegSettings


class Window(nn.Module):
    """What decides about the next gradient, as buffers: a resumed run knows it.

    traces: squared norms of the encoders' gradients in the last 2T steps, [2, 2T]; count: number of steps;
    scores: mean probability of the true labels by each modality, [2].
    """

    traces: Tensor
    count: Tensor
    scores: Tensor
    gammas: Tensor

    def __init__(self, steps: int, gammas: tuple[float, float], growth: float) -> None:
        super().__init__()
        self.growth = growth
        self.register_buffer("gammas", torch.tensor(gammas), persistent=False)
        self.register_buffer("traces", torch.zeros(2, 2 * steps))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scores", torch.zeros(2))

    def factors(self, squared_norms: list[Tensor]) -> Tensor:
        """Note the squared norms of a step's gradients, and return what to multiply them by, [2]."""
        trace = torch.stack(squared_norms).to(self.traces.dtype)
        self.traces.copy_(torch.cat([self.traces[:, 1:], trace[:, None]], dim=1))
        self.count += 1
        is_prime = (self.count < self.traces.shape[1]) | (relative_growth(self.traces) > self.growth)
        return torch.where(is_prime, slowdown(self.scores, self.gammas), 1.0)


class InfoReg(ProjectedFusion):
    """One linear layer on both features, and one on each alone; the better encoder is slowed down at times.

    With D the width of the EHR feature, the logits are linear in [B, 2D]. Losses: the cross-entropies of both
    features together, of the EHR feature alone, and of the image feature alone, over the samples with an
    image.

    s is the mean probability of the true labels by each modality alone, over samples that have both. The
    gradient of the encoder with the larger s is multiplied by 1 - min(gamma gap, 0.9), gap = (s1 - s2) / (s1
    + s2), in its prime learning window: while its Fisher trace, the squared norm of its gradient averaged
    over T steps, exceeds that of the T steps before by more than k, relative; and in the first 2T steps.

    Without an image, its feature is zero.

    Other than in the published code that papers compare with, each encoder has its own trace, not that of the
    EHR for both, and the trace is averaged, since that of one batch is mostly noise. T counts steps, as in
    that code, whose values of T were chosen so; its documentation says epochs.
    """

    title = "InfoReg"
    published_like = "inforeg"
    settings = InfoRegSettings
    learns_from_labels = True

    def __init__(
        self, encoders: Mapping[str, Encoder], outputs: int, kind: str, settings: InfoRegSettings
    ) -> None:
        super().__init__(encoders)
        self.kind = kind
        self.linear = nn.Linear(2 * self.feature_dim, outputs)
        self.ehr_linear, self.cxr_linear = (nn.Linear(self.feature_dim, outputs) for _ in range(2))
        gammas = settings.inforeg_gamma_ehr, settings.inforeg_gamma_cxr
        self.window = Window(settings.inforeg_steps, gammas, settings.inforeg_k)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        logits: Tensor = self.linear(torch.cat(self.both(batch), dim=1))
        return logits

    def supervise(self, batch: Batch) -> Supervision:
        """Return the logits, and the losses "ehr" and "cxr"; in training, keep the scores of the step."""
        ehr, image = self.both(batch)
        alone = [self.ehr_linear(ehr), self.cxr_linear(image)]
        if self.training and torch.is_grad_enabled():
            self.window.scores.copy_(self.scores(alone, batch))
        losses = {
            "ehr": mean_entropy(alone[0], batch.labels, self.kind),
            "cxr": mean_entropy(alone[1], batch.labels, self.kind, batch.has_cxr),
        }
        return Supervision(self.linear(torch.cat([ehr, image], dim=1)), losses)

    def scores(self, alone: list[Tensor], batch: Batch) -> Tensor:
        """Return the mean probability of the true labels by each modality, [2], of samples that have both."""
        parts = [label_entropies(logits.detach(), batch.labels, self.kind) for logits in alone]
        valid = parts[0][1] & batch.has_cxr[:, None]
        sums = [torch.where(valid, (-entropies).exp(), 0.0).sum() for entropies, _ in parts]
        totals = global_sum(torch.stack([*sums, valid.sum().to(sums[0].dtype)]))
        return totals[:2] / totals[2].clamp(min=1.0)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Slow down the better encoder, if this is the time."""
        gradients = [
            [weight.grad for weight in encoder.parameters() if weight.grad is not None]
            for encoder in (self.ehr_encoder, self.cxr_encoder)
        ]
        norms = [torch.stack(torch._foreach_norm(part)).square().sum() for part in gradients]
        for part, factor in zip(gradients, self.window.factors(norms), strict=True):
            torch._foreach_mul_(part, factor)
