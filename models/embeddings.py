"""How embeddings lie on the sphere: whether pairs are near, and whether all has collapsed into one point."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from models.losses import upcast

SHOWN = ("val_image_deviation", "val_ehr_deviation")  # columns of the log that tell a collapse


@torch.no_grad()
def sphere_measures(image: Tensor, ehr: Tensor) -> dict[str, Tensor]:
    """Four scalars of the directions of N pairs, [N, D] and [N, D]; no device sync.

    image_deviation, ehr_deviation: standard deviation of the directions, mean over dimensions, times sqrt(D):
    about 1 where they fill the sphere, 0 where all have collapsed into one. alignment: mean squared distance
    of partners, 0 to 4. uniformity: log of the mean of exp(-2 squared distance) over all couples of one
    modality, mean of both: 0 where all are one point, about -4 at best (Wang & Isola 2020). Zeros for fewer
    than two pairs.

    >>> spread, point = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> {name: round(value.item(), 4) for name, value in sphere_measures(spread, point).items()}
    {'image_deviation': 1.0, 'ehr_deviation': 0.0, 'alignment': 1.0, 'uniformity': -2.0}
    """
    with torch.autocast(image.device.type, enabled=False):
        image, ehr = (functional.normalize(part, dim=1) for part in upcast(image, ehr))
        if len(image) < 2:
            nothing = image.new_zeros(())
            return dict.fromkeys(("image_deviation", "ehr_deviation", "alignment", "uniformity"), nothing)
        return {
            "image_deviation": _deviation(image),
            "ehr_deviation": _deviation(ehr),
            "alignment": (image - ehr).square().sum(dim=1).mean(),
            "uniformity": (_uniformity(image) + _uniformity(ehr)) / 2,
        }


def _deviation(directions: Tensor) -> Tensor:
    return directions.std(dim=0).mean() * math.sqrt(directions.shape[1])


def _uniformity(directions: Tensor) -> Tensor:
    near = (4 * (directions @ directions.T) - 4).exp().fill_diagonal_(0.0)
    return (near.sum() / (len(near) * (len(near) - 1))).log()
