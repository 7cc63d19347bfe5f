"""Replace the layers of one type in a network."""

from __future__ import annotations

from torch import nn


def replace_layers(module: nn.Module, kind: type[nn.Module], replacement: type[nn.Module]) -> nn.Module:
    """Replace each layer of exactly type `kind`, in place, by a layer of a subclass with another `forward`.

    The new layers share weights, buffers, settings and names with the old ones. A module that is itself such
    a layer is not changed: its replacement is returned.

    >>> replace_layers(nn.Sequential(nn.Linear(1, 2), nn.ReLU()), nn.Linear, type("Mine", (nn.Linear,), {}))
    Sequential(
      (0): Mine(in_features=1, out_features=2, bias=True)
      (1): ReLU()
    )
    """
    if type(module) is kind:
        # A shallow copy, as by copy.copy: unlike the constructor, it draws no random weights.
        layer = replacement.__new__(replacement)
        layer.__dict__.update(module.__dict__)
        return layer
    for name, child in module.named_children():
        module.add_module(name, replace_layers(child, kind, replacement))
    return module
