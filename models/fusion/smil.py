"""SMIL: a missing X-ray is reconstructed from the EHR, by meta-learning (Ma et al., AAAI 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import Fusion, Supervision
from models.fusion.losses import label_entropies, masked_mean
from models.fusion.settings import SMILSettings
from models.rows import take_rows
from utils.distributed import gather_with_gradient, is_main, sum_with_gradient, world

CENTRES = 10
MEMORY = 100  # images after which a centre forgets as fast as it learns, since the encoder changes
HIDDEN_DIM = 64
TRAIN_SHARE = 0.8  # of a batch: the samples of the inner steps


class Prior(nn.Module):
    """Centres of the image features of the training samples, as buffers: k-means over batches.

    The first images are centres; then each image moves the nearest one (Sculley 2010).
    """

    centres: Tensor
    counts: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(CENTRES, dim))
        self.register_buffer("counts", torch.zeros(CENTRES))

    @torch.no_grad()
    def update(self, images: Tensor) -> None:
        """Learn from the features of images, [P, D]."""
        images = images.to(self.centres.dtype)
        index = torch.arange(CENTRES, device=images.device)
        place = torch.arange(len(images), device=images.device) + (self.counts > 0).sum()
        first = place[:, None] == index  # images that fill an empty place
        distance = torch.cdist(images, self.centres).masked_fill(self.counts == 0, math.inf)
        nearest = (distance.argmin(dim=1)[:, None] == index) & (place >= CENTRES)[:, None]
        # With fewer images than places before this batch, the others wait for the next batch.
        assigned = torch.where((self.counts > 0).all(), nearest, first).to(images.dtype)
        added = assigned.sum(dim=0)
        self.counts += added
        step = assigned.T @ images - added[:, None] * self.centres
        self.centres += step / self.counts.clamp(min=1.0)[:, None]
        self.counts.clamp_(max=MEMORY)

    def mean(self) -> Tensor:
        """Return the mean of the centres by the images that they stand for, [D]; 0 before any image."""
        return self.counts @ self.centres / self.counts.sum().clamp(min=1.0)


class Features(NamedTuple):
    """Features of n samples: EHR [n, E], image [n, D] (zeros without one), and which have one, bool [n]."""

    ehr: Tensor
    image: Tensor
    has_cxr: Tensor

    def take(self, part: slice) -> Features:
        """Return some of the samples."""
        return Features(self.ehr[part], self.image[part], self.has_cxr[part])


class Passed(NamedTuple):
    """What the head makes of n samples and m draws of noise: [m, n, ...] each, m = 1 without noise."""

    logits: Tensor
    hidden: Tensor
    reconstructed: Tensor


class Head(nn.Module):
    """The reconstruction of image features, and the classifier; its weights take the inner steps."""

    def __init__(self, ehr_dim: int, image_dim: int, outputs: int) -> None:
        super().__init__()
        narrow = max(ehr_dim // 2, 1)
        self.inference = nn.Sequential(
            nn.Linear(ehr_dim, ehr_dim), nn.ReLU(), nn.Linear(ehr_dim, narrow), nn.ReLU(),
            nn.Linear(narrow, ehr_dim), nn.Softplus(),
        )  # fmt: skip
        self.weights = nn.Linear(ehr_dim, CENTRES)
        self.projection = nn.Linear(image_dim, ehr_dim)
        self.hidden = nn.Linear(2 * ehr_dim, HIDDEN_DIM)
        self.linear = nn.Linear(HIDDEN_DIM, outputs)

    def forward(self, features: Features, centres: Tensor, noise: Tensor) -> Passed:
        """Classify n samples with noise [m, n, E] in the reconstruction; centres: [K, D]."""
        weights = self.weights(self.inference(features.ehr) + noise)
        reconstructed = weights @ self.projection(centres)  # [m, n, E]
        image = torch.where(features.has_cxr[:, None], self.projection(features.image), reconstructed)
        hidden = self.hidden(torch.cat([features.ehr.expand_as(image), image], dim=-1)).relu()
        return Passed(self.linear(hidden), hidden, reconstructed)


class SMIL(Fusion):
    """Two layers on the EHR feature and an image feature, the sample's own or a reconstructed one.

    With E the width of the EHR feature and D that of the image's: a network maps the EHR feature to [B, E];
    in training, noise from N(0, 1) is added; a linear layer gives 10 weights. The reconstructed feature [B,
    E] is the sum of the projections of 10 centres of image features of training samples, with these weights.

    The loss of a set of samples is the cross-entropy with noise, the mean squared difference of the
    predictions with and without noise at a temperature, alpha times that of the hidden features, and beta
    times that of the reconstructed and the projected mean image feature. In training, inner steps on four
    fifths of the batch lower it; the loss of the last fifth with the stepped weights is differentiated
    through these steps, and added to the cross-entropy of the whole batch without noise.

    Without an image, the reconstructed feature takes its place, in training and in evaluation.

    Other than in the paper, the inner steps change the head, not the image encoder: second derivatives of a
    ResNet would cost many times the time; and the centres follow the encoder during the training, so that no
    pretrained one is needed. Other than in the published code that papers compare with, the stepped weights
    are used, every draw of noise counts, and evaluation reconstructs instead of encoding a black image.
    """

    title = "SMIL"
    data_pairs = "partial"
    published_like = "smil"
    settings = SMILSettings
    learns_from_labels = True

    def __init__(
        self, encoders: Mapping[str, Encoder], outputs: int, kind: str, settings: SMILSettings
    ) -> None:
        super().__init__(encoders)
        self.kind, self.chosen = kind, settings
        image_dim = encoders["cxr"].feature_dim
        self.head = Head(encoders["ehr"].feature_dim, image_dim, outputs)
        self.prior = Prior(image_dim)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        return self.classify(self.features(batch))

    def supervise(self, batch: Batch) -> Supervision:
        """Return the logits; in training, learn the centres, and return the losses of the outer step too."""
        if not (self.training and torch.is_grad_enabled()):
            return Supervision(self(batch), {})
        features = self.features(batch)
        logits = self.classify(features)
        with torch.autocast(batch.labels.device.type, enabled=False):
            everyone = Features(
                gather_with_gradient(features.ehr),
                gather_with_gradient(features.image),
                gather_with_gradient(features.has_cxr.float()) > 0,
            )
            losses = self.outer_losses(everyone, gather_with_gradient(batch.labels))
        return Supervision(logits, losses)

    def features(self, batch: Batch) -> Features:
        """Return the features of a batch; in training, learn the centres from its images."""
        image = self.cxr_encoder(batch.cxr)
        if self.training and torch.is_grad_enabled():
            self.prior.update(gather_with_gradient(image.detach()))
        return Features(self.encode_ehr(batch), take_rows(image, batch.image), batch.has_cxr)

    def classify(self, features: Features) -> Tensor:
        """Map the features of B samples to logits [B, outputs], without noise."""
        passed: Passed = self.head(features, self.prior.centres, features.ehr.new_zeros(1, 1, 1))
        return passed.logits[0]

    def outer_losses(self, features: Features, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of the last samples with the weights after the inner steps on the first ones."""
        count = len(features.ehr)
        first = min(max(round(TRAIN_SHARE * count), 1), max(count - 1, 1))
        inner, outer = (slice(first), slice(first, None)) if count > 1 else (slice(1), slice(1))
        noise = self.noise(features.ehr)
        weights: dict[str, Tensor] = dict(self.head.named_parameters())
        for _ in range(self.chosen.smil_inner_steps):
            losses = self.losses(weights, features.take(inner), labels[inner], noise[:, inner])
            gradients = torch.autograd.grad(
                torch.stack([*losses.values()]).sum(), list(weights.values()), create_graph=True
            )
            weights = {
                name: weight - self.chosen.smil_lr * gradient
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
        return self.losses(weights, features.take(outer), labels[outer], noise[:, outer])

    def noise(self, ehr: Tensor) -> Tensor:
        """Return noise for n samples, [draws, n, E], the same on all processes."""
        noise = torch.randn(self.chosen.smil_draws, *ehr.shape, dtype=ehr.dtype, device=ehr.device)
        return sum_with_gradient(noise * is_main()) if world() > 1 else noise

    def losses(
        self, weights: Mapping[str, Tensor], features: Features, labels: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted losses of n samples with given weights of the head."""
        centres, draws = self.prior.centres, len(noise)
        noisy, clean = (
            functional_call(self.head, dict(weights), (features, centres, part))
            for part in (noise, noise.new_zeros(1, 1, 1))
        )
        target = functional.linear(
            self.prior.mean(), weights["projection.weight"], weights["projection.bias"]
        )
        probabilities = [self.activate(part.logits / self.chosen.smil_temperature) for part in (noisy, clean)]
        entropies = label_entropies(noisy.logits.flatten(0, 1), labels.repeat(draws, 1), self.kind)
        return {
            "meta": masked_mean(*entropies),
            "consistency": (probabilities[0] - probabilities[1]).square().mean(),
            "hidden": self.chosen.smil_alpha * (noisy.hidden - clean.hidden).square().mean(),
            "reconstruction": self.chosen.smil_beta * (noisy.reconstructed - target.detach()).square().mean(),
        }

    def activate(self, logits: Tensor) -> Tensor:
        """Map logits [..., outputs] to probabilities."""
        return logits.softmax(dim=-1) if self.kind == "ordinal" else logits.sigmoid()
