"""Encoders of the two modalities: an LSTM over the hours of a stay, a torchvision network over its X-ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torchvision import models as torchvision_models

from datasets.schema import CHANNELS
from utils.distributed import all_reduce_sum

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BACKBONES = tuple(torchvision_models.list_models(module=torchvision_models, include=["*resne*", "densenet*"]))
SMALLEST_IMAGE = 32  # every backbone halves the image five times


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the two encoders; a checkpoint carries it, so that nothing downstream asks for it again."""

    ehr_dim: int = 128
    """Width of the LSTM and of its feature."""
    ehr_layers: int = 1
    """Layers of the LSTM."""
    ehr_dropout: float = 0.0
    """Dropout between the layers of the LSTM and on its feature."""
    vision_backbone: str = "resnet34"
    """Any torchvision ResNet or DenseNet by name."""
    pretrained: bool = False
    """Start from ImageNet weights, which torchvision downloads, and normalise images as they were."""


class EHREncoder(nn.Module):
    """LSTM over hourly bins; the feature of a stay is the hidden state of its last valid hour.

    Orthogonal recurrent weights, Xavier input weights, zero biases. It runs in float32 under autocast too:
    rounding errors of a recurrence add up over hundreds of hours, and its cost is in the steps, not in their
    precision.

    >>> from torch.nn.utils.rnn import pack_sequence
    >>> stays = pack_sequence([torch.zeros(3, 76), torch.zeros(48, 76)], enforce_sorted=False)
    >>> EHREncoder(feature_dim=16)(stays).shape
    torch.Size([2, 16])
    """

    def __init__(
        self, channels: int = CHANNELS, feature_dim: int = 128, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.lstm = nn.LSTM(channels, feature_dim, layers, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self._initialise()

    def _initialise(self) -> None:
        for name, weight in self.lstm.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(weight)
            elif "weight_ih" in name:
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.zeros_(weight)

    def _run(self, ehr: PackedSequence) -> tuple[PackedSequence, Tensor]:
        with torch.autocast(ehr.data.device.type, enabled=False):
            hidden, (last, _) = self.lstm(ehr)
        return hidden, last[-1]

    def sequence(self, ehr: PackedSequence) -> PackedSequence:
        """Packed [sum of hours, channels] -> packed [sum of hours, feature_dim]: hourly hidden states."""
        return self._run(ehr)[0]

    def forward(self, ehr: PackedSequence) -> Tensor:
        """Packed [sum of hours, channels] -> [B, feature_dim] float32, in the order of the stays."""
        return self.dropout(self._run(ehr)[1])


class CXREncoder(nn.Module):
    """A torchvision ResNet or DenseNet without its classifier.

    `stages` are its five parts in order (stem, then four blocks) and `stage_dims` their output channels, for
    fusions that act between them: `prepare`, each stage in turn, `pool` is what `forward` does. With
    `pretrained` the weights are ImageNet's and images are normalised as ImageNet was; without it images stay
    in [0, 1]. `download=False` builds the same module for a checkpoint to fill, and fetches nothing.

    >>> encoder = CXREncoder("resnet18")
    >>> encoder(torch.rand(2, 1, 64, 64)).shape, encoder.feature_dim, encoder.stage_dims
    (torch.Size([2, 512]), 512, (64, 64, 128, 256, 512))
    """

    def __init__(self, name: str = "resnet34", pretrained: bool = False, download: bool = True) -> None:
        super().__init__()
        if name not in BACKBONES:
            known = ", ".join(BACKBONES)
            raise ValueError(
                f"--vision_backbone {name}: not a ResNet or DenseNet of torchvision; use one of {known}"
            )
        weights = "DEFAULT" if pretrained and download else None
        self.pretrained = pretrained
        self.stages = nn.ModuleList(_stages(torchvision_models.get_model(name, weights=weights)))
        self.stage_dims = _stage_dims(self.stages)
        self.feature_dim = self.stage_dims[-1]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # what tensor cores read; .to(device) keeps it

    def prepare(self, cxr: Tensor) -> Tensor:
        """[P, 1, S, S] in [0, 1] -> [P, 3, S, S]: grey seen as three channels, without a copy."""
        if min(cxr.shape[-2:]) < SMALLEST_IMAGE:
            raise ValueError(
                f"--image_size {min(cxr.shape[-2:])}: the image encoder halves images five times; "
                f"use at least {SMALLEST_IMAGE}"
            )
        grey = cxr.expand(-1, 3, -1, -1)
        return (grey - self.mean) / self.std if self.pretrained else grey

    @staticmethod
    def pool(maps: Tensor) -> Tensor:
        """[P, C, H, W] -> [P, C], float32 or better: the mean over the image."""
        return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))

    def forward(self, cxr: Tensor) -> Tensor:
        """[P, 1, S, S] -> [P, feature_dim], float32 or better, for any P.

        One image alone has no batch statistics (a layer refuses to see a single value per channel, and none
        would leave NaN behind), so in training fewer than two are normalised with the running statistics and
        leave these as they are. No image still passes the network, as an empty batch: the weights then have
        gradients of zero rather than none, for which data-parallel training would wait.
        """
        maps = self.prepare(cxr)
        with running_statistics(self, active=self._images_in_statistics(len(cxr)) < 2):
            for stage in self.stages:
                maps = stage(maps)
        return self.pool(maps)

    def _images_in_statistics(self, images: int) -> float:
        """Images that batch norm averages over: those of this process, or of all where it is synchronised."""
        shared = self.training and any(isinstance(part, nn.SyncBatchNorm) for part in self.modules())
        return all_reduce_sum(images) if shared else images


@contextmanager
def running_statistics(module: nn.Module, active: bool = True) -> Iterator[None]:
    """While active, batch norm layers in training use their running statistics and leave them as they are."""
    norms = (part for part in module.modules() if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm))
    layers = [norm for norm in norms if active and norm.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


def _stages(network: nn.Module) -> list[nn.Sequential]:
    if hasattr(network, "fc"):  # ResNet and its kin
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        return [stem, network.layer1, network.layer2, network.layer3, network.layer4]
    parts = dict(network.features.named_children())
    stem = nn.Sequential(parts["conv0"], parts["norm0"], parts["relu0"], parts["pool0"])
    blocks = [nn.Sequential(parts[f"denseblock{i}"], parts[f"transition{i}"]) for i in (1, 2, 3)]
    return [stem, *blocks, nn.Sequential(parts["denseblock4"], parts["norm5"], nn.ReLU(inplace=True))]


@torch.no_grad()
def _stage_dims(stages: nn.ModuleList) -> tuple[int, ...]:
    """Output channels of each stage, measured with one blank image."""
    maps, dims = torch.zeros(1, 3, SMALLEST_IMAGE, SMALLEST_IMAGE), []
    with running_statistics(stages):
        for stage in stages:
            maps = stage(maps)
            dims.append(maps.shape[1])
    return tuple(dims)


def build_encoders(
    config: EncoderConfig, modalities: Sequence[str] = ("ehr", "cxr"), download: bool = True
) -> dict[str, EHREncoder | CXREncoder]:
    """The encoder of each modality, by its name; `download` as in CXREncoder.

    >>> {name: encoder.feature_dim for name, encoder in build_encoders(EncoderConfig()).items()}
    {'ehr': 128, 'cxr': 512}
    """
    builders = {
        "ehr": lambda: EHREncoder(CHANNELS, config.ehr_dim, config.ehr_layers, config.ehr_dropout),
        "cxr": lambda: CXREncoder(config.vision_backbone, config.pretrained, download),
    }
    return {name: builders[name]() for name in modalities}


def at_present_rows(features: Tensor, present: Tensor) -> Tensor:
    """[P, D] of the rows that are present, [B] bool -> [B, D] with zeros at the others; no device sync.

    >>> at_present_rows(torch.ones(1, 2), torch.tensor([False, True]))
    tensor([[0., 0.],
            [1., 1.]])
    """
    if len(features) == len(present):
        return features
    empty = features.new_zeros(len(present), features.shape[1])
    return empty.masked_scatter(present[:, None].expand_as(empty), features)
