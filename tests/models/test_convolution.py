"""A trimmed convolution has the values and gradients of nn.Conv2d, and skips taps that see only padding."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.convolution import TrimmedConv2d, trim_convolutions

SHAPES = [
    (size, kernel, stride, padding)
    for size, kernel, stride, padding in itertools.product(
        range(1, 7), (1, 2, 3, 5, 7), (1, 2, 3), (0, 1, 2, 3)
    )
    if size + 2 * padding >= kernel
]


@pytest.mark.parametrize(("groups", "channels_last"), [(1, False), (2, True)])
def test_values_and_gradients_are_those_of_the_convolution(groups: int, channels_last: bool) -> None:
    torch.manual_seed(0)
    for size, kernel, stride, padding in SHAPES:
        plain = nn.Conv2d(4, 6, kernel, stride, padding, groups=groups).double()
        trimmed = trim_convolutions(nn.Sequential(plain))[0]
        assert type(trimmed) is TrimmedConv2d and trimmed.weight is plain.weight
        image = torch.rand(3, 4, size, size + 1, dtype=torch.float64)
        if channels_last:
            image = image.to(memory_format=torch.channels_last)
        one, other = image.clone().requires_grad_(), image.clone().requires_grad_()
        expected = functional.conv2d(one, plain.weight, plain.bias, stride, padding, groups=groups)
        output = trimmed(other)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        wanted = torch.autograd.grad(expected.square().sum(), [one, plain.weight, plain.bias])
        gradients = torch.autograd.grad(output.square().sum(), [other, plain.weight, plain.bias])
        torch.testing.assert_close(gradients, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "taps"),
    [
        (1, 3, 1, 1, (1, 1)),
        (2, 3, 2, 1, (2, 2)),
        (2, 3, 1, 1, (3, 3)),
        (1, 7, 2, 3, (1, 1)),
        (32, 7, 2, 3, (7, 7)),
    ],
)
def test_taps_that_see_only_padding_cost_nothing(
    size: int, kernel: int, stride: int, padding: int, taps: tuple[int, int]
) -> None:
    image, costs = torch.rand(1, 2, size, size), []
    for layer in (nn.Conv2d, TrimmedConv2d):
        with FlopCounterMode(display=False) as counter:
            layer(2, 2, kernel, stride, padding)(image)
        costs.append(counter.get_total_flops())
    assert costs[1] * kernel**2 == costs[0] * taps[0] * taps[1]


def test_trimming_draws_no_random_number_and_keeps_names() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sequential(nn.Conv2d(2, 2, 1, bias=False)))
    state = torch.get_rng_state()
    names = list(network.state_dict())
    assert list(trim_convolutions(network).state_dict()) == names
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("other", [{"padding": "same"}, {"padding_mode": "reflect"}, {"dilation": 2}])
def test_other_kinds_of_convolution_are_left_as_they_are(other: dict[str, object]) -> None:
    layer = nn.Conv2d(2, 2, 3, **{"padding": 1, **other})
    image = torch.rand(1, 2, 5, 5)
    expected = layer(image)
    torch.testing.assert_close(trim_convolutions(nn.Sequential(layer))(image), expected)
