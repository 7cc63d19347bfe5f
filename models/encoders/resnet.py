"""ResNets that are, weight by weight, those of torchvision, without the time that torchvision takes to start.

torchvision takes almost as long to import as PyTorch, because its operators for detection import PyTorch's
compiler. Most runs train a ResNet, and begin without either.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

IMAGENET_CLASSES = 1000


class Shape(NamedTuple):
    """The shape of a ResNet: its blocks in each of four layers, and how wide they are.

    groups: groups of a bottleneck's 3 x 3 convolution, each of `group_width` channels in the first layer.
    """

    blocks: tuple[int, int, int, int]
    has_bottlenecks: bool = True
    groups: int = 1
    group_width: int = 64


RESNETS = {
    "resnet101": Shape((3, 4, 23, 3)),
    "resnet152": Shape((3, 8, 36, 3)),
    "resnet18": Shape((2, 2, 2, 2), has_bottlenecks=False),
    "resnet34": Shape((3, 4, 6, 3), has_bottlenecks=False),
    "resnet50": Shape((3, 4, 6, 3)),
    "resnext101_32x8d": Shape((3, 4, 23, 3), groups=32, group_width=8),
    "resnext101_64x4d": Shape((3, 4, 23, 3), groups=64, group_width=4),
    "resnext50_32x4d": Shape((3, 4, 6, 3), groups=32, group_width=4),
    "wide_resnet101_2": Shape((3, 4, 23, 3), group_width=128),
    "wide_resnet50_2": Shape((3, 4, 6, 3), group_width=128),
}


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions whose maps are added to the input's (He et al. 2016)."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        shortcut = _shortcut(inputs, channels, stride)  # before the others, as torchvision draws weights
        self.conv1 = _convolution(inputs, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, channels, H / stride, W / stride]."""
        residual: Tensor = self.relu(self.bn1(self.conv1(maps)))
        residual = self.bn2(self.conv2(residual))
        residual += maps if self.downsample is None else self.downsample(maps)
        output: Tensor = self.relu(residual)
        return output


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 pixels, the second with the stride, as in torchvision."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        shortcut = _shortcut(inputs, outputs, stride)  # before the others, as torchvision draws weights
        self.conv1 = _convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        residual: Tensor = self.relu(self.bn1(self.conv1(maps)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        residual += maps if self.downsample is None else self.downsample(maps)
        output: Tensor = self.relu(residual)
        return output


class ResNet(nn.Module):
    """A ResNet with random weights: the parts, names and draws of torchvision's network of the same name."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv1 = _convolution(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        expansion = 4 if shape.has_bottlenecks else 1
        inputs = 64
        for number, blocks in enumerate(shape.blocks):
            outputs = 64 * 2**number * expansion
            self.add_module(f"layer{number + 1}", _layer(shape, number, blocks, inputs, outputs))
            inputs = outputs
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, IMAGENET_CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, outputs of fc]."""
        maps = images
        for name, part in self.named_children():
            maps = part(maps.flatten(1) if name == "fc" else maps)
        return maps


def _layer(shape: Shape, number: int, blocks: int, inputs: int, outputs: int) -> nn.Sequential:
    """Build a layer, counted from 0; each but the first halves the maps."""
    built: list[nn.Module] = []
    for block in range(blocks):
        channels, stride = (outputs, 1) if block else (inputs, 2 if number else 1)
        if shape.has_bottlenecks:
            width = shape.group_width * shape.groups * 2**number
            built.append(Bottleneck(channels, width, outputs, stride, shape.groups))
        else:
            built.append(BasicBlock(channels, outputs, stride))
    return nn.Sequential(*built)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """Return what brings a block's input to the shape of its output, None if it has it."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps a map's size, divided by the stride."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)


def resnet(name: str) -> ResNet:
    """Build a ResNet with the weights that torchvision would draw with the same seed.

    >>> resnet("resnet18").fc.in_features
    512
    """
    return ResNet(RESNETS[name])
