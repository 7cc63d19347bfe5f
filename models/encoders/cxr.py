"""Image encoders: a torchvision ResNet or DenseNet without its classifier, and what all encoders share."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from datasets.schema import SMALLEST_IMAGE
from models.batch_norm import CPUSyncBatchNorm
from models.convolution import order_by_taps, suit_small_maps
from models.encoders.base import Encoder
from models.encoders.resnet import RESNETS, resnet
from utils.distributed import all_reduce_sum, world
from utils.files import sha256
from utils.state_dict import read_state_dict

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
BACKBONES = (*DENSENETS, *RESNETS)


def torchvision_network(name: str) -> nn.Module:
    """Build one of BACKBONES with random weights; DenseNets import torchvision, which takes a while."""
    if name in RESNETS:
        return resnet(name)
    from torchvision import models

    network: nn.Module = models.get_model(name, weights=None)
    return network


def torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as torchvision's networks do today; files of its DenseNets have norm.1 for norm1."""
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])(?=\.)")
    return {old.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """Return torchvision's weights of a network, whose file is fetched unless PyTorch's cache has it whole.

    Raises:
        ValueError: The file cannot be fetched, or another one is in its place; the message says which file,
            where to get it and where to put it.
    """
    from torchvision.models import get_model_weights

    url: str = get_model_weights(name).DEFAULT.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    start_of_hash = path.stem.rpartition("-")[2]
    cure = f"fetch {url} where there is a network and put it there, or leave out --pretrained"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), start_of_hash)
        except (OSError, RuntimeError, HTTPException) as error:
            fault = f"is missing, and fetching it failed ({error})"
            raise ValueError(f"--pretrained: {path} {fault}; {cure}") from error
    elif not sha256(path).startswith(start_of_hash):
        fault = f"is damaged: its SHA-256 does not begin with {start_of_hash}"
        raise ValueError(f"--pretrained: {path} {fault}; remove it, {cure}")
    return torchvision_names(read_state_dict(path))


class Stages(nn.Sequential):
    """The stages of an image encoder in order; `--compile` compiles them as one, since their shapes stay."""

    compiles = True

    def forward(self, maps: Tensor) -> Tensor:
        """Map [P, 3, S, S] to [P, C, H, W]. Without this method torch.compile would compile each block."""
        for stage in self:
            maps = stage(maps)
        return maps


class ImageEncoder(Encoder):
    """What image encoders share: `crop`, what their central view shows, and batch norm of few images.

    crop: part of an image's shorter side; 0: the whole image, on black; None: as published.
    """

    crop: float | None = None

    def safe_batch_norm(self, images: int) -> AbstractContextManager[None]:
        """Return the context in which to run the network on this process's number of images.

        Fewer than two images have no batch statistics: PyTorch refuses a single value per channel, and an
        empty batch would make the running statistics NaN. In training they are normalised with the running
        statistics, which are not updated.
        """
        return running_statistics(self, active=self._batch_norm_images(images) < 2)

    def _batch_norm_images(self, images: int) -> float:
        """Return how many images batch norm averages over: those of all processes if it is synchronised."""
        if world() == 1:
            return images
        layers = (nn.SyncBatchNorm, CPUSyncBatchNorm)
        is_synchronised = any(isinstance(module, layers) for module in self.modules())
        return all_reduce_sum(images) if is_synchronised and self.training else images


def crop_of(module: nn.Module) -> float | None:
    """Return `crop` of the image encoder in a module, None without one."""
    encoders = (part for part in module.modules() if isinstance(part, ImageEncoder))
    return next((encoder.crop for encoder in encoders), None)


class CXREncoder(ImageEncoder):
    """A torchvision ResNet or DenseNet without its classifier.

    With `pretrained` the weights are ImageNet's and images are normalised as ImageNet was; without it images
    stay in [0, 1]. `download=False` builds the module for a checkpoint to fill, and fetches nothing. For
    fusions that act between the `stages` (the stem and four blocks, with `stage_dims` output channels),
    `prepare`, each stage under `safe_batch_norm` and `pool` do what `forward` does.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "resnet34", pretrained: bool = False, download: bool = True) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(
                f"--vision_backbone {name}: not a ResNet or DenseNet of torchvision; use one of "
                f"{', '.join(BACKBONES)}"
            )
        self.pretrained = pretrained
        network = torchvision_network(name)
        if pretrained and download:
            network.load_state_dict(imagenet_weights(name))
        self.stages = stages_of(suit_small_maps(network))
        self.stage_dims = _stage_dims(self.stages)
        self.feature_dim = self.stage_dims[-1]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply what moves a module; a GPU's tensor cores read weights in channels-last.

        On a CPU, large kernels have their taps outermost, see `models.taps`, and the others their channels
        innermost.
        """
        before = self.mean.device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.mean.device != before:
            layout = torch.contiguous_format if self.mean.device.type == "cpu" else torch.channels_last
            self.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
            order_by_taps(self)
        return self

    def weights_by_layer(self) -> list[list[nn.Parameter]]:
        """Return the weights of each stage, from the stem to the last block."""
        return [list(stage.parameters()) for stage in self.stages]

    def prepare(self, cxr: Tensor) -> Tensor:
        """Repeat grey images [P, 1, S, S] in [0, 1] as three channels, [P, 3, S, S].

        On a GPU this is without a copy, and weights decide the layout of all maps; on a CPU the images do.
        """
        if min(cxr.shape[-2:]) < SMALLEST_IMAGE:
            raise ValueError(
                f"--image_size {min(cxr.shape[-2:])}: the image encoder halves images five times; "
                f"use at least {SMALLEST_IMAGE}"
            )
        rgb = cxr.expand(-1, 3, -1, -1)
        pixels = (rgb - self.mean) / self.std if self.pretrained else rgb
        on_cpu = pixels.device.type == "cpu"
        return pixels.contiguous(memory_format=torch.channels_last) if on_cpu else pixels

    @staticmethod
    def pool(maps: Tensor) -> Tensor:
        """Average feature maps [P, C, H, W] over the image: [P, C], float32 or better."""
        return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))

    def forward(self, cxr: Tensor) -> Tensor:
        """Map images [P, 1, S, S] to features [P, feature_dim], float32 or better; P may be 0.

        An empty batch runs too: data-parallel training waits for a gradient (of zero) of every weight.
        """
        return self.pool(self.maps(cxr))

    def maps(self, cxr: Tensor) -> Tensor:
        """Map images [P, 1, S, S] to the maps [P, feature_dim, h, w] of the last stage; P may be 0."""
        maps = self.prepare(cxr)
        with self.safe_batch_norm(len(cxr)):
            output: Tensor = self.stages(maps)
        return output


@contextmanager
def running_statistics(module: nn.Module, active: bool = True) -> Iterator[None]:
    """If active, make batch norm layers in training mode use their running statistics without an update."""
    parts = module.modules() if active else ()
    norms = (part for part in parts if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm))
    layers = [norm for norm in norms if norm.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


def stages_of(network: nn.Module) -> Stages:
    """Return the stages of a ResNet or DenseNet of torchvision, which share its weights."""
    return Stages(*_stages(network))


def _stages(network: nn.Module) -> list[nn.Module]:
    """Return the stages. ReLU comes after max pooling, of maps of a quarter: the values are the same."""
    parts = dict(network.named_children())
    if "fc" in parts:  # ResNets
        stem = nn.Sequential(parts["conv1"], parts["bn1"], parts["maxpool"], parts["relu"])
        return [stem, *(parts[f"layer{i}"] for i in (1, 2, 3, 4))]
    parts = dict(parts["features"].named_children())
    stem = nn.Sequential(parts["conv0"], parts["norm0"], parts["pool0"], parts["relu0"])
    blocks = [nn.Sequential(parts[f"denseblock{i}"], parts[f"transition{i}"]) for i in (1, 2, 3)]
    return [stem, *blocks, nn.Sequential(parts["denseblock4"], parts["norm5"], nn.ReLU(inplace=True))]


def _stage_dims(stages: Stages) -> tuple[int, ...]:
    """Return the output channels of each stage, which are those of its last layer that has weights."""
    last = [
        [part for part in stage.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)][-1]
        for stage in stages
    ]
    return tuple(part.out_channels if isinstance(part, nn.Conv2d) else part.num_features for part in last)
