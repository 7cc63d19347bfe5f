"""Losses: pure functions of embeddings, or of logits and labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Denominator = Literal["decoupled", "full"]
DENOMINATORS: tuple[Denominator, ...] = ("decoupled", "full")


def upcast(*embeddings: Tensor) -> tuple[Tensor, ...]:
    """The embeddings in float32 or better: sums over pairs lose too much in half precision.

    >>> [x.dtype for x in widened(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float64))]
    [torch.float32, torch.float64]
    """
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in embeddings)


def similarities(image: Tensor, ehr: Tensor) -> Tensor:
    """[N, D], [N, D] -> [N, N] cosines: row i is image i against every EHR. Half is widened to float32.

    >>> similarities(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    tensor([[1., 1.],
            [0., 0.]])
    """
    with torch.autocast(image.device.type, enabled=False):
        image, ehr = upcast(image, ehr)
        return functional.normalize(image, dim=1) @ functional.normalize(ehr, dim=1).T


def simclr(
    image: Tensor,
    ehr: Tensor,
    temperature: float | Tensor = 0.1,
    denominator: Denominator = "decoupled",
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-modal contrastive loss of N pairs: [N, D], [N, D] -> scalar, in float32 or better.

    S = cosine(image_i, ehr_j) / temperature; the loss is the mean over i of [logsumexp_j S_ij - S_ii] +
    [logsumexp_j S_ji - S_ii]: two directions added, not averaged. `decoupled` (published) leaves the positive
    j = i out of the logsumexp (Yeh et al. 2022, decoupled contrastive learning), `full` keeps it (NT-Xent,
    CLIP). `weight` [N] multiplies the terms of each pair before the mean. One pair alone has nothing to be
    told apart from: its loss is zero, with gradients of zero, so that a last batch of one is a step without
    effect. Raises ValueError for an unknown denominator, a temperature that is not positive, or embeddings of
    different shapes.

    >>> pairs = torch.eye(2)
    >>> [round(simclr(pairs, pairs, 0.5, kind).item(), 4) for kind in ("decoupled", "full")]
    [-4.0, 0.2539]
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f"--denominator {denominator}: use one of {', '.join(DENOMINATORS)}")
    scaled = _scaled(image, ehr, temperature)
    if len(scaled) < 2:
        return 0.0 * scaled.sum()
    positive = scaled.diagonal()
    if denominator == "decoupled":
        itself = torch.eye(len(scaled), dtype=torch.bool, device=scaled.device)
        scaled = scaled.masked_fill(itself, -torch.inf)
    terms = scaled.logsumexp(dim=1) + scaled.logsumexp(dim=0) - 2 * positive
    return (terms if weight is None else weight.to(terms.dtype) * terms).mean()


def gap_weight(days: Tensor, k: float) -> Tensor:
    """Weight of pairs whose image and prediction lie `days` apart, [N] -> [N]: k - exp(-k |days|).

    It grows from k - 1 at no gap to k. ValueError for a k below 1, which would reward bad pairs.

    >>> gap_weight(torch.tensor([0.0, -0.5, 100.0]), k=2.0)
    tensor([1.0000, 1.6321, 2.0000])
    """
    if k < 1:
        raise ValueError(f"--k {k}: weights k - exp(-k |days|) must not be negative; use 1 or more")
    return k - torch.exp(-k * days.abs())


def clip(image: Tensor, ehr: Tensor, temperature: float | Tensor) -> Tensor:
    """CLIP (Radford et al. 2021): cross-entropy of finding an image's EHR, and an EHR's image, averaged.

    [N, D], [N, D] -> scalar. It is half of `simclr` with the full denominator.

    >>> round(clip(torch.eye(2), torch.eye(2), 0.5).item(), 4)
    0.1269
    """
    return simclr(image, ehr, temperature, "full") / 2


def siglip(image: Tensor, ehr: Tensor, temperature: float | Tensor, bias: float | Tensor) -> Tensor:
    """Every image and EHR asked on its own whether they are a pair (Zhai et al. 2023): [N, D] x 2 -> scalar.

    L_ij = cosine(image_i, ehr_j) / temperature + bias; the loss is the mean over i of
    sum_j -log sigmoid(L_ij if j = i, else -L_ij). A pair alone has a loss too; no pair at all has none.

    >>> round(siglip(torch.eye(2), torch.eye(2), 1.0, 0.0).item(), 4)
    1.0064
    """
    logits = _scaled(image, ehr, temperature) + bias
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -functional.logsigmoid(signs * logits).sum() / max(len(logits), 1)


def _scaled(image: Tensor, ehr: Tensor, temperature: float | Tensor) -> Tensor:
    _check_pairs(image, ehr)
    if not isinstance(temperature, Tensor) and temperature <= 0:
        raise ValueError(f"--temperature {temperature}: must be positive; the published one is 0.1")
    return similarities(image, ehr) / temperature


def _check_pairs(image: Tensor, ehr: Tensor) -> None:
    if image.shape != ehr.shape or image.ndim != 2:
        raise ValueError(
            f"pairs must be two [N, D] embeddings of one shape, got {tuple(image.shape)} and "
            f"{tuple(ehr.shape)}; give both heads the same width"
        )


def vicreg(
    image: Tensor, ehr: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> dict[str, Tensor]:
    """VICReg of N pairs (Bardes et al. 2022): [N, D], [N, D] -> {"loss", its three terms}, scalars.

    invariance: mean squared difference of partners; variance: over both modalities, the sum of
    mean_d relu(1 - sqrt(var_d + 1e-4)) / 2; covariance: over both, the sum of squared off-diagonal entries of
    the covariance matrix / D. The loss is their sum with the weights given, as published by default.
    Variances and covariances are unbiased, of the N pairs that there are. Fewer than two have none: all is
    then zero, with gradients of zero. In float32 or better. ValueError for embeddings of different shapes.

    >>> spread = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    >>> {name: round(term.item(), 4) for name, term in vicreg(spread, spread + 1).items()}
    {'loss': 37.375, 'invariance': 1.0, 'variance': 0.495, 'covariance': 0.0}
    """
    _check_pairs(image, ehr)
    with torch.autocast(image.device.type, enabled=False):
        image, ehr = upcast(image, ehr)
        if len(image) < 2:
            nothing = 0.0 * (image.sum() + ehr.sum())
            return dict.fromkeys(("loss", "invariance", "variance", "covariance"), nothing)
        near = functional.mse_loss(image, ehr)
        spread, shared = (one + two for one, two in zip(_spread(image), _spread(ehr), strict=True))
        loss = invariance * near + variance * spread + covariance * shared
        return {"loss": loss, "invariance": near, "variance": spread, "covariance": shared}


def _spread(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and covariance term of one modality: [N, D] -> scalars."""
    count, dim = embedding.shape
    centred = embedding - embedding.mean(dim=0)
    matrix = centred.T @ centred / (count - 1)
    deviation = (matrix.diagonal() + 1e-4).sqrt()
    among = (matrix.square().sum() - matrix.diagonal().square().sum()) / dim
    return functional.relu(1 - deviation).mean() / 2, among


def retrieval_accuracy(image: Tensor, ehr: Tensor) -> Tensor:
    """Share of N pairs whose partner is the nearest of all, over both directions: [N, D] x 2 -> scalar.

    Zero when there is no pair.

    >>> retrieval_accuracy(torch.eye(3), torch.eye(3)[[0, 2, 1]]).item()
    0.3333333432674408
    """
    cosines = similarities(image.detach(), ehr.detach())
    if not len(cosines):
        return cosines.sum()
    partner = torch.arange(len(cosines), device=cosines.device)
    return torch.stack([(cosines.argmax(dim=side) == partner).float().mean() for side in (0, 1)]).mean()


def binary_cross_entropies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number of the cross-entropies of known entries: logits [B, L], labels [B, L], NaN unknown.

    >>> total, known = binary_cross_entropies(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
    >>> round(total.item(), 4), known.item()
    (0.6931, 1.0)
    """
    known = ~labels.isnan()
    entropies = functional.binary_cross_entropy_with_logits(
        logits.float(), labels.nan_to_num(0.0), known.float(), reduction="sum"
    )
    return entropies, known.sum().float()


def class_cross_entropies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number of the cross-entropies of known rows: logits [B, C], labels [B, 1] classes, NaN unknown.

    >>> total, known = class_cross_entropies(torch.zeros(2, 10), torch.tensor([[3.0], [torch.nan]]))
    >>> round(total.item(), 4), known.item()
    (2.3026, 1.0)
    """
    classes = labels[:, 0].nan_to_num(-1.0).long()
    entropies = functional.cross_entropy(logits.float(), classes, ignore_index=-1, reduction="sum")
    return entropies, (classes >= 0).sum().float()
