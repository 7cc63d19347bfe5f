"""Convolutions of small maps have the values and gradients of nn.Conv2d, and skip what takes time."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.convolution import SmallMapConv2d, cropped_kernel, suit_small_maps

SHAPES = [
    (size, kernel, stride, padding)
    for size, kernel, stride, padding in itertools.product(
        range(1, 7), (1, 2, 3, 5, 7), (1, 2, 3), (0, 1, 2, 3)
    )
    if size + 2 * padding >= kernel
]


@pytest.mark.parametrize(
    ("groups", "channels_last", "channels"), [(1, False, 6), (2, True, 6), (1, True, 60), (1, False, 1000)]
)
def test_values_and_gradients_are_those_of_the_convolution(
    groups: int, channels_last: bool, channels: int
) -> None:
    torch.manual_seed(0)
    for size, kernel, stride, padding in SHAPES:
        plain = nn.Conv2d(4, channels, kernel, stride, padding, groups=groups).double()
        trimmed = suit_small_maps(nn.Sequential(plain))[0]
        assert type(trimmed) is SmallMapConv2d and trimmed.weight is plain.weight
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
        (2, 3, 1, 1, (2, 2)),  # from each of the four pixels
        (3, 3, 1, 1, (3, 3)),
        (1, 7, 2, 3, (1, 1)),
        (32, 7, 2, 3, (7, 7)),
    ],
)
def test_taps_that_see_only_padding_cost_nothing(
    size: int, kernel: int, stride: int, padding: int, taps: tuple[int, int]
) -> None:
    image, costs = torch.rand(64, 2, size, size), []
    for layer in (nn.Conv2d, SmallMapConv2d):
        with FlopCounterMode(display=False) as counter:
            layer(2, 2, kernel, stride, padding)(image)
        costs.append(counter.get_total_flops())
    assert costs[1] * kernel**2 == costs[0] * taps[0] * taps[1]


@pytest.mark.parametrize(
    ("images", "size", "stride", "is_product"),
    [
        (1, 1, 1, True),
        (900, 1, 1, True),  # one tap is left: a product of any number of images
        (1, 2, 2, True),
        (64, 2, 2, True),
        (128, 2, 2, True),
        (129, 2, 2, False),
        (8, 2, 1, True),
        (9, 2, 1, True),  # of whole maps
        (900, 2, 1, True),
        (8, 4, 1, True),  # twice as many pixels as channels
        (9, 4, 1, False),
        (1, 5, 1, True),  # larger maps: half as many
        (2, 5, 1, False),
        (0, 1, 1, False),
    ],
)
def test_few_pixels_are_multiplied_without_reordering_weights(
    images: int, size: int, stride: int, is_product: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    conv2d = functional.conv2d
    monkeypatch.setattr(functional, "conv2d", lambda *args, **more: calls.append(1) or conv2d(*args, **more))
    layer = SmallMapConv2d(2, 64, 3, stride, 1)
    output = layer(torch.rand(images, 2, size, size))
    side = (size - 1) // stride + 1
    assert output.shape == (images, 64, side, side)
    assert bool(calls) is not is_product
    output.sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_cropped_weights_is_in_their_order(layout: torch.memory_format) -> None:
    weight = torch.rand(4, 5, 3, 3).to(memory_format=layout).requires_grad_()
    (gradient,) = torch.autograd.grad(cropped_kernel(weight, (1, 2), (0, 3)).sum(), weight)
    assert gradient.stride() == weight.stride()
    assert gradient.sum() == 4 * 5 * 3 and (gradient[:, :, 1] == 1).all()


def test_other_devices_and_groups_convolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfold(*_: object, **__: object) -> None:
        raise AssertionError("a product where a convolution is expected")

    monkeypatch.setattr(functional, "unfold", unfold)
    SmallMapConv2d(2, 64, 3, 1, 1, device="meta")(torch.rand(1, 2, 2, 2, device="meta"))
    SmallMapConv2d(2, 64, 3, 1, 1, groups=2)(torch.rand(1, 2, 2, 2))


def test_mixed_precision_and_compilation_reach_both_ways() -> None:
    torch.manual_seed(0)
    layer = SmallMapConv2d(8, 64, 3, 1, 1)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for size in (1, 2):
        image = torch.rand(4, 8, size, size)
        expected = functional.conv2d(image, layer.weight, layer.bias, padding=1)
        torch.testing.assert_close(compiled(image), expected)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = layer(image)
        assert mixed.dtype is torch.bfloat16
        torch.testing.assert_close(mixed.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("images", "size"), [(1, 1), (90, 1), (1, 2), (90, 2), (90, 3)])
def test_mixed_precision_gives_maps_in_the_type_of_the_convolution(
    images: int, size: int, bias: bool, dtype: torch.dtype
) -> None:
    layer = SmallMapConv2d(8, 64, 3, 1, 1, bias=bias)
    image = torch.rand(images, 8, size, size)
    with torch.autocast("cpu", dtype):
        assert layer(image).dtype is dtype


def test_a_single_map_has_the_values_of_the_convolution() -> None:
    layer = SmallMapConv2d(8, 64, 3, 1, 1)
    for size in (1, 2, 5):
        image = torch.rand(8, size, size)
        expected = functional.conv2d(image, layer.weight, layer.bias, padding=1)
        torch.testing.assert_close(layer(image), expected)


@pytest.mark.parametrize("images", [1, 90])
@pytest.mark.parametrize(
    ("channels", "size", "padding", "error"),
    [(8, 2, 0, "Kernel size can't"), (8, 1, 0, "Kernel size can't"), (5, 2, 1, "to have 8 channels")],
)
def test_a_map_that_does_not_fit_is_refused_as_by_the_convolution(
    images: int, channels: int, size: int, padding: int, error: str
) -> None:
    with pytest.raises(RuntimeError, match=error):
        SmallMapConv2d(8, 64, 3, 1, padding)(torch.rand(images, channels, size, size))


def test_trimming_draws_no_random_number_and_keeps_names() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sequential(nn.Conv2d(2, 2, 1, bias=False)))
    state = torch.get_rng_state()
    names = list(network.state_dict())
    assert list(suit_small_maps(network).state_dict()) == names
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("other", [{"padding": "same"}, {"padding_mode": "reflect"}, {"dilation": 2}])
def test_other_kinds_of_convolution_are_left_as_they_are(other: dict[str, object]) -> None:
    layer = nn.Conv2d(2, 2, 3, **{"padding": 1, **other})
    image = torch.rand(1, 2, 5, 5)
    expected = layer(image)
    torch.testing.assert_close(suit_small_maps(nn.Sequential(layer))(image), expected)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 1)])
def test_a_product_has_second_derivatives(size: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = SmallMapConv2d(2, 20, 3, stride, 1).double()
    image = torch.rand(1, 2, size, size, dtype=torch.float64, requires_grad=True)

    def convolve(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, image)[:, :3]

    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(convolve, (image, weight))


def test_frozen_weights_and_inputs_have_no_gradient() -> None:
    layer = SmallMapConv2d(2, 20, 3, 1, 1)
    image = torch.rand(1, 2, 2, 2)
    layer(image).sum().backward()
    assert layer.weight.grad is not None and image.grad is None
    layer.requires_grad_(False).weight.grad = None
    layer(image.requires_grad_()).sum().backward()
    assert layer.weight.grad is None and image.grad is not None
