"""Losses: pure functions of embeddings, or of logits and labels."""

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from models.objectives.settings import Denominator

DENOMINATORS: tuple[Denominator, ...] = get_args(Denominator)


def upcast(*embeddings: Tensor) -> tuple[Tensor, ...]:
    """Convert embeddings to float32 or better, since sums over pairs lose too much in half precision."""
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in embeddings)


def similarities(image: Tensor, ehr: Tensor) -> Tensor:
    """Return the cosines of all images (rows) with all EHRs, [N, D] x 2 -> [N, N], in float32 or better.

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
    """Return the cross-modal contrastive loss of N pairs, [N, D] x 2 -> scalar, in float32 or better.

    With S_ij = cosine(image_i, ehr_j) / temperature, the loss is the mean over i of
    [logsumexp_j S_ij - S_ii] + [logsumexp_j S_ji - S_ii]: the two directions are added, not averaged. A
    single pair has no negatives: its loss and gradients are zero, so that a last batch of one has no effect.
    `decoupled` (published) leaves the positive j = i out of the logsumexp (Yeh et al. 2022, decoupled
    contrastive learning); `full` keeps it, which is twice the loss of CLIP. Negatives are of the other
    modality alone: NT-Xent (Chen et al. 2020) also takes those of the same. `weight` [N] multiplies the
    pairs' terms.

    Raises:
        ValueError: The denominator is unknown, the temperature not positive, or the shapes differ.
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f"--denominator {denominator}: use one of {', '.join(DENOMINATORS)}")
    logits = _scaled_similarities(image, ehr, temperature)
    if len(logits) < 2:
        return 0.0 * logits.sum()
    positive = logits.diagonal()
    if denominator == "decoupled":
        is_positive = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(is_positive, -torch.inf)
    terms = logits.logsumexp(dim=1) + logits.logsumexp(dim=0) - 2 * positive
    return (terms if weight is None else weight.to(terms.dtype) * terms).mean()


def gap_weight(days: Tensor, k: float) -> Tensor:
    """Return the weights k - exp(-k |days|), k 1 or more, of pairs; days: from image to prediction, [N]."""
    if k < 1:
        raise ValueError(f"--k {k}: weights k - exp(-k |days|) must not be negative; use 1 or more")
    return k - torch.exp(-k * days.abs())


def clip(image: Tensor, ehr: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the loss of CLIP (Radford et al. 2021), [N, D] x 2 -> scalar.

    It averages the cross-entropies of finding an image's EHR and an EHR's image.
    """
    return simclr(image, ehr, temperature, "full") / 2


def siglip(image: Tensor, ehr: Tensor, temperature: float | Tensor, bias: float | Tensor) -> Tensor:
    """Return the loss of SigLIP (Zhai et al. 2023), [N, D] x 2 -> scalar.

    Each image and EHR are classified as a pair or not: with L_ij = cosine(image_i, ehr_j) / temperature +
    bias, the loss is the mean over i of sum_j -log sigmoid(L_ij if j = i, else -L_ij); 0 without pairs.
    """
    logits = _scaled_similarities(image, ehr, temperature) + bias
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -functional.logsigmoid(signs * logits).sum() / max(len(logits), 1)


def _scaled_similarities(image: Tensor, ehr: Tensor, temperature: float | Tensor) -> Tensor:
    check_same_shape(image, ehr)
    if not isinstance(temperature, Tensor) and temperature <= 0:
        raise ValueError(f"--temperature {temperature}: must be positive; the published one is 0.1")
    return similarities(image, ehr) / temperature


def check_same_shape(image: Tensor, ehr: Tensor) -> None:
    """Raise ValueError unless both embeddings are [N, D]."""
    if image.shape != ehr.shape or image.ndim != 2:
        raise ValueError(
            f"pairs must be two [N, D] embeddings of the same shape, got {tuple(image.shape)} and "
            f"{tuple(ehr.shape)}; give both heads the same width"
        )


def vicreg(
    image: Tensor, ehr: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> dict[str, Tensor]:
    """Return the loss of VICReg for N pairs, [N, D] x 2, and its three terms (Bardes et al. 2022), scalars.

    invariance: mean squared difference of partners; variance: sum over both modalities of
    mean_d relu(1 - sqrt(var_d + 1e-4)) / 2; covariance: sum over both of the squared off-diagonal covariances
    / D. The loss is their weighted sum, by default with the published weights. (Co)variances are unbiased
    estimates; with fewer than two pairs values and gradients are zero. All is in float32 or better.
    """
    check_same_shape(image, ehr)
    with torch.autocast(image.device.type, enabled=False):
        image, ehr = upcast(image, ehr)
        if len(image) < 2:
            zero = 0.0 * (image.sum() + ehr.sum())
            return dict.fromkeys(("loss", "invariance", "variance", "covariance"), zero)
        invariance_term = functional.mse_loss(image, ehr)
        image_variance, image_covariance = _variance_and_covariance(image)
        ehr_variance, ehr_covariance = _variance_and_covariance(ehr)
        variance_term = image_variance + ehr_variance
        covariance_term = image_covariance + ehr_covariance
        loss = invariance * invariance_term + variance * variance_term + covariance * covariance_term
        terms = {"invariance": invariance_term, "variance": variance_term, "covariance": covariance_term}
        return {"loss": loss, **terms}


def _variance_and_covariance(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variance and the covariance term of one modality, [N, D] -> scalars."""
    count, dim = embedding.shape
    centred = embedding - embedding.mean(dim=0)
    matrix = centred.T @ centred / (count - 1)
    deviation = (matrix.diagonal() + 1e-4).sqrt()
    # Not the sum of all squares less those of the diagonal: a large variance would leave no digits.
    off_diagonal = (matrix - matrix.diagonal().diag()).square().sum() / dim
    return functional.relu(1 - deviation).mean() / 2, off_diagonal


def retrieval_accuracy(image: Tensor, ehr: Tensor) -> Tensor:
    """Return how often the partner is the most similar of all, over both directions: [N, D] x 2 -> scalar.

    It is zero without pairs.
    """
    cosines = similarities(image.detach(), ehr.detach())
    if not len(cosines):
        return cosines.sum()
    partner = torch.arange(len(cosines), device=cosines.device)
    return torch.stack([(cosines.argmax(dim=dim) == partner).float().mean() for dim in (0, 1)]).mean()


def binary_cross_entropies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and the number of the cross-entropies of all known labels [B, L]; NaN is unknown."""
    known = ~labels.isnan()
    entropies = functional.binary_cross_entropy_with_logits(
        logits.float(), labels.nan_to_num(0.0), known.float(), reduction="sum"
    )
    return entropies, known.sum().float()


def class_cross_entropies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and the number of the cross-entropies of all known classes [B, 1]; NaN is unknown."""
    classes = labels[:, 0].nan_to_num(-1.0).long()
    entropies = functional.cross_entropy(logits.float(), classes, ignore_index=-1, reduction="sum")
    return entropies, (classes >= 0).sum().float()
