"""UMSE: observed values as triplets, and modalities that meet in a bottleneck (Lee et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.schema import Batch, variables
from models.encoders import CXREncoder, Encoder
from models.fusion.attention import SelfAttentionLayer
from models.fusion.base import Fusion, Hours, raw_hours
from models.fusion.settings import UMSESettings
from models.rows import take_rows


class Triplets(NamedTuple):
    """The latest observed values of B samples, [B, K] each; some places are empty (not `present`)."""

    value: Tensor
    hour: Tensor
    variable: Tensor
    present: Tensor


def observed_triplets(hours: Hours, most: int) -> Triplets:
    """Return the values that were observed, in the order of time, with their hour and variable.

    A place is empty where fewer were observed than `most`. The value of a category is its number.
    """
    masks = [variable.mask_channel for variable in variables()]
    observed = hours.values[:, :, masks[0] : masks[-1] + 1] > 0.5  # [B, T, V]
    observed = observed & hours.present()[..., None]
    values = torch.stack(
        [
            hours.values[:, :, v.first_channel]
            if v.width == 1
            else hours.values[:, :, v.first_channel : v.first_channel + v.width]
            .argmax(dim=2)
            .to(hours.values.dtype)
            for v in variables()
        ],
        dim=2,
    )
    flat = observed.flatten(1)
    kept = min(most, flat.shape[1])
    order = flat.int().sort(dim=1, stable=True).indices[:, -kept:]  # observed ones last, in the order of time
    variable = order % len(masks)
    hour = order // len(masks)
    return Triplets(values.flatten(1).gather(1, order), hour, variable, flat.gather(1, order))


class NumberEmbedding(nn.Module):
    """Linear from one number, layer norm, ReLU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(1, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map numbers [...] to [..., dim]."""
        return functional.relu(self.norm(self.linear(numbers[..., None])))


class UMSE(Fusion):
    """A transformer for each modality, which meet in bottleneck tokens; a mix of both ends is classified.

    With D the width of the EHR feature: a triplet (hour, variable, value) is the sum of three embeddings,
    [B, K, D]; the tokens of an image are the positions of the image encoder's last maps, [B, 49, D], with an
    embedding of the days between image and prediction. Each modality has a CLS token. In a layer, a modality
    attends to its own tokens and to the bottleneck; the next bottleneck is the mean of both modalities'. The
    two CLS tokens, weighted by the softmax of two learned numbers, go through two layers. No loss of its own.

    Without an image the bottleneck is the EHR's and so is the CLS token: the image's weight is zero.

    Other than in the paper, image tokens come from the image encoder, so that it can be a pretrained one, and
    a triplet has no position beside its hour. Other than in the published code that papers compare with, an
    image that is there counts as there, the triplets are the observed values, not the imputed ones, and no
    loop runs over samples.
    """

    title = "UMSE"
    data_pairs = "partial"
    published_like = "umse"
    encoded: ClassVar[tuple[str, ...]] = ("cxr",)
    settings = UMSESettings
    intermediate = True
    cxr_encoder: CXREncoder

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: UMSESettings) -> None:
        super().__init__(encoders)
        dim = encoders["ehr"].feature_dim
        self.triplets = settings.umse_triplets
        self.embed_value, self.embed_hour = NumberEmbedding(dim), NumberEmbedding(dim)
        self.embed_variable = nn.Embedding(len(variables()), dim)
        self.embed_position, self.embed_gap = (
            nn.Linear(encoders["cxr"].feature_dim, dim),
            NumberEmbedding(dim),
        )
        self.tokens = nn.ParameterDict(
            {
                "cls": nn.Parameter(0.02 * torch.randn(2, dim)),
                "bottleneck": nn.Parameter(0.02 * torch.randn(settings.umse_bottlenecks, dim)),
                "mix": nn.Parameter(torch.zeros(2)),
            }
        )
        self.ehr_layers, self.image_layers = (
            nn.ModuleList(SelfAttentionLayer(dim, settings.umse_dropout) for _ in range(settings.umse_layers))
            for _ in range(2)
        )
        self.classifier = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        ehr, observed = self.ehr_tokens(batch)
        image = self.image_tokens(batch)
        has_cxr = batch.has_cxr[:, None]
        bottleneck = self.tokens["bottleneck"].expand(len(ehr), -1, -1)
        width = bottleneck.shape[1]
        observed = torch.cat([observed, torch.ones_like(observed[:, :1]).expand(-1, width)], dim=1)
        for of_ehr, of_image in zip(self.ehr_layers, self.image_layers, strict=True):
            ehr = of_ehr(torch.cat([ehr, bottleneck], dim=1), observed)
            image = of_image(torch.cat([image, bottleneck], dim=1))
            ehr, from_ehr = ehr.tensor_split([-width], dim=1)
            image, from_image = image.tensor_split([-width], dim=1)
            bottleneck = torch.where(has_cxr[..., None], (from_ehr + from_image) / 2, from_ehr)
        ehr_weight, image_weight = self.tokens["mix"].softmax(dim=0)
        mixed = ehr_weight * ehr[:, 0] + image_weight * image[:, 0]
        logits: Tensor = self.classifier(torch.where(has_cxr, mixed, ehr[:, 0]))
        return logits

    def ehr_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return CLS and the tokens of the triplets, [B, 1 + K, D], and which are there, bool [B, 1 + K]."""
        triplets = observed_triplets(raw_hours(batch), self.triplets)
        tokens = (
            self.embed_value(triplets.value)
            + self.embed_hour(triplets.hour.to(triplets.value.dtype) / 48)
            + self.embed_variable(triplets.variable)
        )
        cls = self.tokens["cls"][0].expand(len(tokens), 1, -1)
        is_there = torch.ones_like(triplets.present[:, :1])
        return torch.cat([cls, tokens], dim=1), torch.cat([is_there, triplets.present], dim=1)

    def image_tokens(self, batch: Batch) -> Tensor:
        """Return CLS and the tokens of the image, [B, 1 + K, D]; without an image, not to be used."""
        assert batch.cxr is not None, "a batch has the modalities of its fusion"
        maps = self.embed_position(self.cxr_encoder.maps(batch.cxr).flatten(2).transpose(1, 2))  # [P, K, D]
        maps = take_rows(maps, batch.image)
        maps = maps + self.embed_gap(batch.gap_days.nan_to_num(0.0).to(maps.dtype))[:, None]
        cls = self.tokens["cls"][1].expand(len(maps), 1, -1)
        return torch.cat([cls, maps], dim=1)
