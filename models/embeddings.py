"""Measures of embeddings on the unit sphere: how close pairs are, and whether all embeddings collapsed."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from models.losses import upcast

COLLAPSE_COLUMNS = ("val_image_deviation", "val_ehr_deviation")  # columns of the log that reveal a collapse


@torch.no_grad()
def sphere_metrics(image: Tensor, ehr: Tensor) -> dict[str, Tensor]:
    """Return four metrics of the directions of N pairs, [N, D] x 2, without a device sync.

    image_deviation, ehr_deviation: standard deviation of the directions, averaged over dimensions, times
    sqrt(D): about 1 if they fill the sphere, 0 if they collapsed into one point. alignment: mean squared
    distance of partners, 0 to 4. uniformity: log of the mean of exp(-2 * squared distance) over all pairs
    within a modality, averaged over modalities: 0 for a single point, about -4 at best (Wang & Isola 2020).
    All are zero for fewer than two pairs.
    """
    with torch.autocast(image.device.type, enabled=False):
        image, ehr = (functional.normalize(embedding, dim=1) for embedding in upcast(image, ehr))
        if len(image) < 2:
            names = ("image_deviation", "ehr_deviation", "alignment", "uniformity")
            return dict.fromkeys(names, image.new_zeros(()))
        return {
            "image_deviation": _deviation(image),
            "ehr_deviation": _deviation(ehr),
            "alignment": (image - ehr).square().sum(dim=1).mean(),
            "uniformity": (_uniformity(image) + _uniformity(ehr)) / 2,
        }


def _deviation(directions: Tensor) -> Tensor:
    return directions.std(dim=0).mean() * math.sqrt(directions.shape[1])


def _uniformity(directions: Tensor) -> Tensor:
    count = len(directions)
    kernel = (4 * (directions @ directions.T) - 4).exp().fill_diagonal_(0.0)  # exp(-2 * squared distance)
    return (kernel.sum() / (count * (count - 1))).log()
