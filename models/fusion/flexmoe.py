"""Flex-MoE: tokens for a missing X-ray, and experts that a router chooses (Yun et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.attention import Attention
from models.fusion.base import Supervision
from models.fusion.losses import expected_load, global_mean, global_sum, squared_variation
from models.fusion.projected import ProjectedFusion
from models.fusion.settings import FlexMoESettings
from models.losses import upcast

TOKENS = 16  # of a modality
FULL, EHR_ONLY = 0, 1  # combinations of modalities; the router of EHR_ONLY is led to the expert of its number


class Gates(NamedTuple):
    """How tokens [n] are routed: weights of the experts, their load, and the router's logits, [n, E] each."""

    weights: Tensor
    load: Tensor
    logits: Tensor


class Router(nn.Module):
    """Noisy top-k gates of the experts (Shazeer et al. 2017); the noise is for training."""

    def __init__(self, dim: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.clean = nn.Linear(dim, experts, bias=False)
        self.deviation = nn.Linear(dim, experts, bias=False)

    def forward(self, tokens: Tensor) -> Gates:
        """Route tokens [n, dim]. The weights of a token are the softmax of its k largest logits."""
        clean, deviation = upcast(self.clean(tokens), self.deviation(tokens))
        deviation = functional.softplus(deviation) + 1e-2
        noisy = clean + torch.randn_like(clean) * deviation if self.training else clean
        largest = noisy.topk(self.top_k, dim=1)
        weights = torch.zeros_like(noisy).scatter(1, largest.indices, largest.values.softmax(dim=1))
        return Gates(weights, expected_load(clean, noisy, deviation, self.top_k), clean)


class Experts(nn.Module):
    """Networks dim - 2 dim - dim, whose outputs are mixed by weights.

    All run on all tokens: no token is sent anywhere, so that shapes stay, and no CUDA build is needed.
    """

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(experts, dim, 2 * dim))
        self.first_bias = nn.Parameter(torch.zeros(experts, 1, 2 * dim))
        self.second = nn.Parameter(torch.empty(experts, 2 * dim, dim))
        self.second_bias = nn.Parameter(torch.zeros(experts, 1, dim))
        for weight in (self.first, self.second):
            nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """Map tokens [n, dim], with weights [n, E], to [n, dim]."""
        hidden = functional.gelu(tokens @ self.first + self.first_bias)  # [E, n, 2 dim]
        return torch.einsum("ent,ne->nt", hidden @ self.second + self.second_bias, weights)


class FlexMoE(ProjectedFusion):
    """A transformer layer whose feed-forward part is a mixture of experts; then one linear layer.

    With D the width of the EHR feature: a linear layer makes 16 tokens [B, 16, D] of each modality's feature.
    Self-attention runs over all 32; then each token goes through its k experts. The means of the tokens of
    both modalities, [B, 2D], are classified.

    Losses, all with the weight --flexmoe_gate: the squared coefficients of variation of importance (sum of
    the gates' weights) and load of the experts, of samples that have both modalities; and the cross-entropy
    that leads samples without an X-ray to the expert that is theirs.

    Without an image, its tokens are learned ones, the missing-modality bank.

    Other than in the paper, the bank has only the entries that can be read, since a sample always has an EHR;
    and in the first epochs, instead of putting complete samples first, no sample is led to an expert. Other
    than in the published code that papers compare with, the combination 0 is "complete" where it is made and
    where it is read, every router is used, and nothing is kept from batch to batch.
    """

    title = "Flex-MoE"
    data_pairs = "partial"
    published_like = "flexmoe"
    settings = FlexMoESettings

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: FlexMoESettings) -> None:
        super().__init__(encoders)
        dim, experts = self.feature_dim, settings.flexmoe_experts
        self.weight, self.warmup_epochs = settings.flexmoe_gate, settings.flexmoe_warmup
        self.tokenizers = nn.ModuleList(nn.Linear(dim, TOKENS * dim) for _ in range(2))
        self.bank = nn.ParameterDict({"image": nn.Parameter(0.02 * torch.randn(TOKENS, dim))})
        self.token_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.attention_norm, self.experts_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim)
        self.experts = Experts(dim, experts)
        self.routers = nn.ModuleList(
            Router(dim, experts, settings.flexmoe_top_k) for _ in range(settings.flexmoe_routers)
        )
        self.dropout = nn.Dropout(settings.flexmoe_dropout)
        self.linear = nn.Linear(2 * dim, outputs)
        self.schedule = _Schedule(settings.flexmoe_warmup == 0)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        return self.run(batch)[0]

    def supervise(self, batch: Batch) -> Supervision:
        """Return the logits, and the losses "importance", "load" and "specialise"."""
        logits, gates = self.run(batch)
        combination = combinations(batch.has_cxr)
        of_token = combination.repeat_interleave(2 * TOKENS, output_size=len(gates.logits))
        is_full = (of_token == FULL)[:, None]
        importance, load = (global_sum((part * is_full).sum(dim=0)) for part in (gates.weights, gates.load))
        entropies = functional.cross_entropy(gates.logits.float(), of_token, reduction="none")
        led = global_mean(entropies, of_token != FULL) * self.schedule.is_led
        losses = {
            "importance": squared_variation(importance), "load": squared_variation(load), "specialise": led,
        }  # fmt: skip
        return Supervision(logits, {name: self.weight * loss for name, loss in losses.items()})

    def run(self, batch: Batch) -> tuple[Tensor, Gates]:
        """Return the logits [B, outputs], and how all tokens [B x 32] were routed."""
        ehr, image = (
            self.dropout(norm(make(feature).unflatten(1, (TOKENS, -1))))
            for norm, make, feature in zip(self.token_norms, self.tokenizers, self.both(batch), strict=True)
        )
        tokens = torch.cat([ehr, torch.where(batch.has_cxr[:, None, None], image, self.bank["image"])], dim=1)
        normal = self.attention_norm(tokens)
        tokens = tokens + self.dropout(self.attention(normal, normal))
        normal = self.experts_norm(tokens).flatten(0, 1)
        gates = self.route(normal, combinations(batch.has_cxr))
        tokens = tokens + self.dropout(self.experts(normal, gates.weights).view_as(tokens))
        means = tokens.unflatten(1, (2, TOKENS)).mean(dim=2)
        logits: Tensor = self.linear(means.flatten(1))
        return logits, gates

    def route(self, tokens: Tensor, combination: Tensor) -> Gates:
        """Route the tokens [B x 32, D] of samples with a combination [B] of modalities."""
        routed = [router(tokens) for router in self.routers]
        if len(routed) == 1:
            gates: Gates = routed[0]
            return gates
        is_full = (combination == FULL).repeat_interleave(2 * TOKENS, output_size=len(tokens))[:, None]
        general, special = routed
        return Gates(*(torch.where(is_full, *pair) for pair in zip(general, special, strict=True)))

    def end_epoch(self, epoch: int) -> None:
        """Begin to lead samples to their expert after the first epochs."""
        self.schedule.is_led.fill_(float(epoch + 1 >= self.warmup_epochs))


class _Schedule(nn.Module):
    """Whether samples are led to their expert (1) or not yet (0), as a buffer: a resumed run knows it."""

    is_led: Tensor

    def __init__(self, is_led: bool) -> None:
        super().__init__()
        self.register_buffer("is_led", torch.tensor(float(is_led)))


def combinations(has_cxr: Tensor) -> Tensor:
    """Return the combination of modalities of each sample, [B]: FULL, or EHR_ONLY without an image."""
    return torch.where(has_cxr, FULL, EHR_ONLY)
