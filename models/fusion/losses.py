"""Losses of the fusions, and what they are made of: pure functions of features, logits and labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from models.losses import upcast
from utils.distributed import sum_with_gradient


def global_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of values where a mask of the same shape is True; 0 where it nowhere is.

    While gradients are computed, it is the mean over all processes, the same on each; all must call it.

    >>> global_mean(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([True, False, True]))
    tensor(2.)
    """
    sums = torch.stack([torch.where(mask, values, 0.0).sum(), mask.sum().to(values.dtype)])
    total, count = global_sum(sums).unbind()
    return total / count.clamp(min=1.0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of this process's values where a mask of the same shape is True; 0 if nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def global_sum(values: Tensor) -> Tensor:
    """Return the sum over all processes while gradients are computed, else the values themselves."""
    return sum_with_gradient(values) if torch.is_grad_enabled() else values


def label_entropies(logits: Tensor, labels: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each label, 0 where it is unknown, and which labels are known, [B, L] x 2.

    logits: [B, outputs]; labels: [B, L], NaN where unknown; kind: that of the task, with one label of
    `outputs` classes if it is "ordinal". exp(-entropy) is the probability of the true label.
    """
    (logits,) = upcast(logits)
    known = ~labels.isnan()
    if kind == "ordinal":
        classes = labels[:, 0].nan_to_num(0.0).long()
        entropies = functional.cross_entropy(logits, classes, reduction="none")[:, None]
    else:
        targets = labels.nan_to_num(0.0).to(logits.dtype)
        entropies = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return torch.where(known, entropies, 0.0), known


def mean_entropy(logits: Tensor, labels: Tensor, kind: str, valid: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of the known labels of all samples, or of those that are valid [B]."""
    entropies, known = label_entropies(logits, labels, kind)
    return global_mean(entropies, known if valid is None else known & valid[:, None])


def soft_or(first: Tensor, second: Tensor) -> Tensor:
    """Pool two logits, [...] x 2 -> [...]: log(2 e^(a+b) + e^a + e^b) - log(2 + e^a + e^b).

    It is the logit of the mean of the two probabilities.
    """
    both = first + second
    numerator = torch.stack([both + math.log(2), first, second]).logsumexp(dim=0)
    denominator = torch.stack([torch.full_like(both, math.log(2)), first, second]).logsumexp(dim=0)
    return numerator - denominator


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean Jensen-Shannon divergence of features as logits of coins, [..., D] x 2 -> [...].

    It is 0 for equal features, and log 2 at most.
    """
    log_heads = torch.logaddexp(functional.logsigmoid(first), functional.logsigmoid(second)) - math.log(2)
    log_tails = torch.logaddexp(functional.logsigmoid(-first), functional.logsigmoid(-second)) - math.log(2)
    mixed = -(log_heads.exp() * log_heads + log_tails.exp() * log_tails)
    return (mixed - (_coin_entropy(first) + _coin_entropy(second)) / 2).mean(dim=-1)


def _coin_entropy(logit: Tensor) -> Tensor:
    return functional.softplus(logit) - logit * logit.sigmoid()


def attention_ranking(attention: Tensor, entropies: Tensor, valid: Tensor) -> Tensor:
    """Return the loss that ranks the attention to tokens as the tokens' own predictions are good.

    attention, entropies: [B, C, 3], by class and token; valid: bool [B, C]. For each class and each pair of
    tokens, the attention to the one with the larger cross-entropy should not be greater; the loss is the mean
    of its excess, over all terms where there is one.
    """
    better = (
        entropies.detach().roll(-1, dims=-1) - entropies.detach()
    ).sign()  # of pairs (0,1), (1,2), (2,0)
    excess = (better * (attention.roll(-1, dims=-1) - attention)).relu()
    return global_mean(excess, valid[..., None] & (excess > 0))


def squared_variation(totals: Tensor) -> Tensor:
    """Return the squared coefficient of variation of experts' totals, [E] -> scalar; 0 if they are equal.

    >>> squared_variation(torch.tensor([1.0, 3.0]))
    tensor(0.2500)
    """
    return totals.var(correction=0) / (totals.mean().square() + 1e-10)


def expected_load(clean: Tensor, noisy: Tensor, deviation: Tensor, top_k: int) -> Tensor:
    """Return the probability of each expert to be among the top k with fresh noise, [N, E] x 3 -> [N, E].

    An expert is if its logit exceeds the k-th largest of the other experts' noisy logits (Shazeer et al.
    2017, appendix A).
    """
    largest = noisy.topk(top_k + 1, dim=1).values
    is_in = noisy >= largest[:, top_k - 1 : top_k]
    threshold = torch.where(is_in, largest[:, top_k:], largest[:, top_k - 1 : top_k])
    load: Tensor = torch.special.ndtr((clean - threshold) / deviation)
    return load


def gaussian_kernel(first: Tensor, second: Tensor, spread: Tensor) -> Tensor:
    """Return the mean of three Gaussian kernels of all rows with all rows, [N, D], [M, D] -> [N, M].

    Their widths are `spread` times 1/2, 1 and 2.
    """
    squared = _squared_distances(first, second)
    return torch.stack([(-squared / (factor * spread)).exp() for factor in (0.5, 1.0, 2.0)]).mean(dim=0)


def mean_squared_distance(rows: Tensor, present: Tensor) -> Tensor:
    """Return the mean squared distance of all pairs of present rows, [N, D], [N] -> scalar above 0."""
    pairs = (present[:, None] & present).fill_diagonal_(False)
    total = torch.where(pairs, _squared_distances(rows, rows), 0.0).sum()
    return (total / pairs.sum().clamp(min=1)).clamp(min=1e-6)


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()


def cut_graph(similarity: Tensor, threshold: Tensor) -> Tensor:
    """Return the similarities above a threshold, and 0 for others; only the threshold's excess is learnt."""
    excess = (similarity - threshold).relu()
    return torch.where(excess > 0, excess + threshold.detach(), 0.0)


def boosted(logits: Tensor, before: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Return the cross-entropy of an added layer with what the layers before it leave, [B, L].

    logits, before: [B, outputs], of the added layer alone and of those before it. The target is the label
    times 1 - p / 2, with p the probability by the layers before, so that the added layer turns to what they
    miss.
    """
    logits, before = upcast(logits, before.detach())
    known = ~labels.isnan()
    if kind == "ordinal":
        classes = labels[:, :1].nan_to_num(0.0).long()
        target = 1 - before.softmax(dim=1).gather(1, classes) / 2
        entropies = -target * logits.log_softmax(dim=1).gather(1, classes)
    else:
        target = labels.nan_to_num(0.0).to(logits.dtype) * (1 - before.sigmoid() / 2)
        entropies = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.where(known, entropies, 0.0)


def slowdown(scores: Tensor, strength: Tensor) -> Tensor:
    """Return by which factor to multiply the gradient of each of two encoders, [2] -> [2].

    With scores s (a mean probability of the true label for each modality), the better one's is 1 - min(g
    gap, 0.9), gap = (s1 - s2) / (s1 + s2) and g its `strength` [2]; the other's is 1.

    >>> slowdown(torch.tensor([0.6, 0.4]), torch.tensor([0.5, 0.5]))
    tensor([0.9000, 1.0000])
    """
    gap = (scores - scores.flip(0)) / scores.sum().clamp(min=1e-12)
    return 1 - (strength * gap.relu()).clamp(max=0.9)


def relative_growth(traces: Tensor) -> Tensor:
    """Return by how much the mean of the later half exceeds that of the earlier, relative, [..., 2T]."""
    earlier, later = (half.mean(dim=-1) for half in traces.chunk(2, dim=-1))
    return (later - earlier) / earlier.clamp(min=1e-12)
