"""Encoders of the two modalities: an LSTM over the hours of a stay, a torchvision network over its X-ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torchvision import models as torchvision_models

from datasets.schema import CHANNELS
from models.batch_norm import CPUSyncBatchNorm
from models.convolution import trim_convolutions
from utils.distributed import all_reduce_sum

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BACKBONES = tuple(torchvision_models.list_models(module=torchvision_models, include=["*resne*", "densenet*"]))
CHUNK_HOURS = 16  # hours; see _by_spans
SMALLEST_IMAGE = 32  # every backbone halves the image five times


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the two encoders; a checkpoint carries it, so that nothing downstream asks for it again."""

    ehr_dim: int = 128
    """Hidden units of a layer of the LSTM, and width of its feature."""
    ehr_layers: int = 1
    """Layers of the LSTM."""
    ehr_dropout: float = 0.0
    """Probability of dropout between the layers of the LSTM and on its feature, 0 to 1."""
    vision_backbone: str = "resnet34"
    """Any torchvision ResNet or DenseNet by name."""
    pretrained: bool = False
    """Start from ImageNet weights, which torchvision downloads, and normalise images as they were."""


FIELDS_OF_ENCODER = {  # the fields of EncoderConfig that shape each encoder
    "ehr": ("ehr_dim", "ehr_layers", "ehr_dropout"),
    "cxr": ("vision_backbone", "pretrained"),
}


class HourlyStates(NamedTuple):
    """Hidden states of B stays by the hour, [T, B, D], and their lengths in hours, [B] on the CPU.

    What stands beyond the end of a stay is never read.

    >>> Hours(torch.tensor([[[1.0], [5.0]], [[3.0], [9.0]]]), torch.tensor([2, 1])).mean()
    tensor([[2.],
            [5.]])
    """

    states: Tensor
    lengths: Tensor

    def mean(self) -> Tensor:
        """[B, D]: over the hours that a stay has."""
        lengths = self._lengths()
        beyond = torch.arange(len(self.states), device=lengths.device)[:, None] >= lengths
        return self.states.masked_fill(beyond[..., None], 0.0).sum(dim=0) / lengths[:, None]

    def last(self) -> Tensor:
        """[B, D]: in the last hour that a stay has."""
        lengths = self._lengths()
        return self.states[lengths - 1, torch.arange(len(lengths), device=lengths.device)]

    def packed(self) -> PackedSequence:
        """[sum of hours, D], in the order of the stays."""
        return pack_padded_sequence(self.states, self.lengths, enforce_sorted=False)

    def _lengths(self) -> Tensor:
        return self.lengths.to(self.states.device, non_blocking=True)


Steps = TypeVar("Steps", PackedSequence, Tensor)


def run_lstm(lstm: nn.LSTM, steps: Steps) -> tuple[Steps, Tensor]:
    """Hidden states at all steps, and the last layer's at the end, [B, D]; in float32 under autocast too.

    Rounding errors of a recurrence add up over its steps, and its cost is in these, not in their precision.
    """
    with torch.autocast(steps.data.device.type, enabled=False):
        steps = steps.to(lstm.get_parameter("weight_hh_l0").dtype)
        if isinstance(steps, PackedSequence) and steps.data.device.type == "cpu":
            return _by_spans(lstm, steps)
        states, (last, _) = lstm(steps)
    return states, last[-1]


def _by_spans(lstm: nn.LSTM, steps: PackedSequence) -> tuple[PackedSequence, Tensor]:
    """`run_lstm` some hours at a time, each span from the state that the one before left.

    On a CPU, PyTorch's gradient of every step is a tensor as long as all steps, so that whole stays would
    cost the square of their hours.
    """
    spans = steps.batch_sizes.split(CHUNK_HOURS)
    parts = steps.data.split([int(sizes.sum()) for sizes in spans])
    state, states, ended = None, [], []
    for data, sizes, next_sizes in zip(parts, spans, (*spans[1:], spans[0][:0]), strict=True):
        going = int(next_sizes[:1].sum())  # the longest stand first, and the others end in this span
        found, (hidden, cell) = lstm(PackedSequence(data, sizes), state)
        states.append(found.data)
        ended.append(hidden[-1, going:])
        state = hidden[:, :going], cell[:, :going]
    last = torch.cat(ended[::-1])
    order = steps.unsorted_indices
    return steps._replace(data=torch.cat(states)), last if order is None else last[order]


class Encoder(nn.Module):
    """What a fusion needs of an encoder: called with its modality, it gives features [B, feature_dim]."""

    feature_dim: int
    __call__: Callable[..., Tensor]


class EHREncoder(Encoder):
    """LSTM over hourly bins; the feature of a stay is the hidden state of its last valid hour.

    Orthogonal recurrent weights, Xavier input weights, zero biases. `encode_lower_layers`, then
    `encode_top_layer` is what `forward` does, for fusions that act between its layers: `lstm` is all of them
    but the last, or the only one, and `top` the last, or None.
    """

    def __init__(
        self, channels: int = CHANNELS, feature_dim: int = 128, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.lstm = nn.LSTM(channels, feature_dim, max(layers - 1, 1), dropout=dropout if layers > 2 else 0.0)
        self.top = nn.LSTM(feature_dim, feature_dim) if layers > 1 else None
        self.dropout = nn.Dropout(dropout)
        self._initialise()

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(weight)
            elif "weight_ih" in name:
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.zeros_(weight)

    def encode_lower_layers(self, ehr: PackedSequence) -> HourlyStates:
        """Packed [sum of hours, channels] -> hidden states below the last layer, or of the only one."""
        return HourlyStates(*pad_packed_sequence(run_lstm(self.lstm, ehr)[0]))

    def encode_top_layer(self, hours: HourlyStates) -> Tensor:
        """What `encode_lower_layers` gave, changed or not -> [B, feature_dim] float32."""
        last = hours.last() if self.top is None else self._above(self.top, hours.packed())[1]
        feature: Tensor = self.dropout(last)
        return feature

    def forward(self, ehr: PackedSequence) -> Tensor:
        """Packed [sum of hours, channels] -> [B, feature_dim] float32, in the order of the stays."""
        states, last = run_lstm(self.lstm, ehr)
        feature: Tensor = self.dropout(last if self.top is None else self._above(self.top, states)[1])
        return feature

    def prefix_features(self, ehr: PackedSequence, stay: Tensor, last: Tensor) -> Tensor:
        """[n, feature_dim]: what `forward` gives of stays cut off after an hour; stay, last: int64 [n].

        An hour's state looks back only, so one pass over a stay gives the features of all its prefixes.
        """
        states = run_lstm(self.lstm, ehr)[0]
        states = states if self.top is None else self._above(self.top, states)[0]
        begun, place = states.batch_sizes.cumsum(0) - states.batch_sizes, states.unsorted_indices
        assert place is not None, "stays are packed in any order"
        feature: Tensor = self.dropout(states.data[begun.to(last.device)[last] + place[stay]])
        return feature

    def _above(self, top: nn.LSTM, states: PackedSequence) -> tuple[PackedSequence, Tensor]:
        return run_lstm(top, states._replace(data=self.dropout(states.data)))


class Stages(nn.Sequential):
    """The parts of an image encoder in order; `--compile` compiles them as one, since their shapes stay."""

    compiles = True

    def forward(self, maps: Tensor) -> Tensor:
        """[P, 3, S, S] -> [P, C, H, W]; written out, as torch.compile would else take each block alone."""
        for stage in self:
            maps = stage(maps)
        return maps


class CXREncoder(Encoder):
    """A torchvision ResNet or DenseNet without its classifier.

    `stages` are its five parts in order (stem, then four blocks) and `stage_dims` their output channels, for
    fusions that act between them: `prepare`, each stage in turn under `safe_batch_norm`, `pool` is what
    `forward` does. With `pretrained` the weights are ImageNet's and images are normalised as ImageNet was;
    without it images stay in [0, 1]. `download=False` builds the same module for a checkpoint to fill, and
    fetches nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "resnet34", pretrained: bool = False, download: bool = True) -> None:
        super().__init__()
        if name not in BACKBONES:
            known = ", ".join(BACKBONES)
            raise ValueError(
                f"--vision_backbone {name}: not a ResNet or DenseNet of torchvision; use one of {known}"
            )
        weights = "DEFAULT" if pretrained and download else None
        self.pretrained = pretrained
        network = trim_convolutions(torchvision_models.get_model(name, weights=weights))
        self.stages = Stages(*_stages(network))
        self.stage_dims = _stage_dims(self.stages)
        self.feature_dim = self.stage_dims[-1]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        # What tensor cores read; .to(device) keeps it. The stubs of torch forget this way to call it.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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

        No image still passes the network, as an empty batch: the weights then have gradients of zero rather
        than none, for which data-parallel training would wait.
        """
        maps = self.prepare(cxr)
        with self.safe_batch_norm(len(cxr)):
            return self.pool(self.stages(maps))

    def safe_batch_norm(self, images: int) -> AbstractContextManager[None]:
        """What the stages are to run in, with the number of images of this process.

        One image alone has no batch statistics (a layer refuses to see a single value per channel, and none
        would leave NaN behind), so in training fewer than two are normalised with the running statistics and
        leave these as they are.
        """
        return running_statistics(self, active=self._images_in_statistics(images) < 2)

    def _images_in_statistics(self, images: int) -> float:
        """Images that batch norm averages over: those of this process, or of all where it is synchronised."""
        shared = any(isinstance(part, nn.SyncBatchNorm | CPUSyncBatchNorm) for part in self.modules())
        return all_reduce_sum(images) if shared and self.training else images


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


def _stages(network: nn.Module) -> list[nn.Module]:
    parts = dict(network.named_children())
    if "fc" in parts:  # ResNet and its kin
        stem = nn.Sequential(parts["conv1"], parts["bn1"], parts["relu"], parts["maxpool"])
        return [stem, *(parts[f"layer{i}"] for i in (1, 2, 3, 4))]
    parts = dict(parts["features"].named_children())
    stem = nn.Sequential(parts["conv0"], parts["norm0"], parts["relu0"], parts["pool0"])
    blocks = [nn.Sequential(parts[f"denseblock{i}"], parts[f"transition{i}"]) for i in (1, 2, 3)]
    return [stem, *blocks, nn.Sequential(parts["denseblock4"], parts["norm5"], nn.ReLU(inplace=True))]


@torch.no_grad()
def _stage_dims(stages: Stages) -> tuple[int, ...]:
    """Output channels of each stage, measured with one blank image."""
    maps, dims = torch.zeros(1, 3, SMALLEST_IMAGE, SMALLEST_IMAGE), []
    with running_statistics(stages):
        for stage in stages:
            maps = stage(maps)
            dims.append(maps.shape[1])
    return tuple(dims)


def build_encoders(
    config: EncoderConfig, modalities: Sequence[str] = ("ehr", "cxr"), download: bool = True
) -> dict[str, Encoder]:
    """The encoder of each modality, by its name; `download` as in CXREncoder.

    >>> {name: encoder.feature_dim for name, encoder in build_encoders(EncoderConfig()).items()}
    {'ehr': 128, 'cxr': 512}
    """
    builders: dict[str, Callable[[], Encoder]] = {
        "ehr": lambda: EHREncoder(CHANNELS, config.ehr_dim, config.ehr_layers, config.ehr_dropout),
        "cxr": lambda: CXREncoder(config.vision_backbone, config.pretrained, download),
    }
    return {name: builders[name]() for name in modalities}


def scatter_rows(features: Tensor, present: Tensor) -> Tensor:
    """[P, D] of the rows that are present, [B] bool -> [B, D] with zeros at the others; no device sync.

    >>> scatter_rows(torch.ones(1, 2), torch.tensor([False, True]))
    tensor([[0., 0.],
            [1., 1.]])
    """
    if len(features) == len(present):
        return features
    empty = features.new_zeros(len(present), features.shape[1])
    return empty.masked_scatter(present[:, None].expand_as(empty), features)


def gather_rows(values: Tensor, present: Tensor, count: int) -> Tensor:
    """[B, D], bool [B] of which `count` are present -> [count, D]: the rows of these; no device sync.

    >>> gather_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([False, True]), 1)
    tensor([[2.]])
    """
    if count == len(present):
        return values
    return values[(~present).int().argsort(stable=True)[:count]]
