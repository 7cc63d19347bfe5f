"""Losses: pure functions of embeddings, or of logits and labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Denominator = Literal["decoupled", "full"]
DENOMINATORS: tuple[Denominator, ...] = ("decoupled", "full")


def similarities(image: Tensor, ehr: Tensor) -> Tensor:
    """[N, D], [N, D] -> [N, N] cosines: row i is image i against every EHR. Half is widened to float32.

    >>> similarities(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    tensor([[1., 1.],
            [0., 0.]])
    """
    with torch.autocast(image.device.type, enabled=False):
        image, ehr = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (image, ehr))
        return functional.normalize(image, dim=1) @ functional.normalize(ehr, dim=1).T


def simclr(
    image: Tensor, ehr: Tensor, temperature: float = 0.1, denominator: Denominator = "decoupled"
) -> Tensor:
    """Cross-modal contrastive loss of N pairs: [N, D], [N, D] -> scalar, in float32 or better.

    S = cosine(image_i, ehr_j) / temperature; the loss is the mean over i of [logsumexp_j S_ij - S_ii] +
    [logsumexp_j S_ji - S_ii]: two directions added, not averaged. `decoupled` (published) leaves the positive
    j = i out of the logsumexp (Yeh et al. 2022, decoupled contrastive learning), `full` keeps it (NT-Xent,
    CLIP). One pair alone has nothing to be told apart from: its loss is zero, with gradients of zero, so that
    a last batch of one is a step without effect. Raises ValueError for an unknown denominator, a temperature
    that is not positive, or embeddings of different shapes.

    >>> pairs = torch.eye(2)
    >>> [round(simclr(pairs, pairs, 0.5, kind).item(), 4) for kind in ("decoupled", "full")]
    [-4.0, 0.2539]
    """
    _check_pairs(image, ehr, temperature, denominator)
    cosines = similarities(image, ehr)
    if len(cosines) < 2:
        return 0.0 * cosines.sum()
    scaled = cosines / temperature
    positive = scaled.diagonal()
    if denominator == "decoupled":
        itself = torch.eye(len(scaled), dtype=torch.bool, device=scaled.device)
        scaled = scaled.masked_fill(itself, -torch.inf)
    return (scaled.logsumexp(dim=1) + scaled.logsumexp(dim=0) - 2 * positive).mean()


def _check_pairs(image: Tensor, ehr: Tensor, temperature: float, denominator: str) -> None:
    if denominator not in DENOMINATORS:
        raise ValueError(f"--denominator {denominator}: use one of {', '.join(DENOMINATORS)}")
    if temperature <= 0:
        raise ValueError(f"--temperature {temperature}: must be positive; the published one is 0.1")
    if image.shape != ehr.shape or image.ndim != 2:
        raise ValueError(
            f"pairs must be two [N, D] embeddings of one shape, got {tuple(image.shape)} and "
            f"{tuple(ehr.shape)}; give both heads the same width"
        )


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
