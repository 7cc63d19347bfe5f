"""The zeros of a kernel's gradient are known while nothing changes it, and its memory is used again."""

import torch
from torch import nn

from models.convolution import SmallMapConv2d
from models.taps import TapGradient, Taps, by_taps, put_taps_outermost


def layer() -> SmallMapConv2d:
    torch.manual_seed(0)
    made = SmallMapConv2d(4, 8, 3, padding=1).double()
    put_taps_outermost(made.weight)
    return made


def backward(convolution: nn.Module, size: int = 1) -> None:
    convolution(torch.rand(2, 4, size, size, dtype=torch.float64)).square().sum().backward()


def test_taps_outermost_change_no_value() -> None:
    weight = torch.rand(2, 3, 3, 5)
    ordered = weight.clone()
    put_taps_outermost(ordered)
    assert torch.equal(ordered, weight) and by_taps(ordered).is_contiguous()


def test_taps_and_all_others_are_the_kernel() -> None:
    kernel, taps = torch.zeros(3, 3, 2, 2), Taps((1, 3), (0, 2))
    for piece in taps.pieces_of(kernel):
        assert piece.is_contiguous()
        piece += 1
    for rest in taps.others_of(kernel):
        rest += 2
    assert (kernel[1:, :2] == 1).all() and kernel.sum() == 4 * (4 + 2 * 5)
    assert Taps.around(kernel - 2) == Taps((1, 3), (0, 2)) and Taps.around(torch.zeros(3, 3, 1, 1)) is None


def test_a_gradient_is_known_until_something_changes_it() -> None:
    convolution = layer()
    weight = convolution.weight
    assert TapGradient.of(weight) is None
    backward(convolution)
    known = TapGradient.of(weight)
    assert known is not None and known.taps == Taps((1, 2), (1, 2))
    assert weight.grad is not None and Taps.around(by_taps(weight.grad)) == known.taps
    weight.grad.mul_(0.5)  # as clipping does
    assert TapGradient.of(weight) is None


def test_a_sum_of_gradients_is_not_known() -> None:
    convolution = layer()
    backward(convolution)
    one = convolution.weight.grad.clone()
    backward(convolution)
    assert TapGradient.of(convolution.weight) is None
    assert not torch.equal(convolution.weight.grad, one)
    convolution.weight.grad = None
    image = torch.rand(2, 4, 1, 1, dtype=torch.float64)
    (convolution(image) + convolution(2 * image)).sum().backward()
    assert TapGradient.of(convolution.weight) is None


def test_memory_is_used_again_only_when_it_was_released() -> None:
    convolution = layer()
    weight, places = convolution.weight, []
    for released in (True, False, False):
        weight.grad = None
        backward(convolution)
        places.append(weight.grad.data_ptr())
        known = TapGradient.of(weight)
        assert known is not None
        if released:
            known.release()
            assert TapGradient.of(weight) is None
        kept = weight.grad
    assert places[0] == places[1] != places[2]
    expected = torch.autograd.grad(convolution(torch.ones(1, 4, 1, 1).double()).sum(), weight)[0]
    assert kept is weight.grad and not torch.equal(kept, expected)


def test_memory_of_another_type_is_not_used_again() -> None:
    convolution = layer()
    for dtype in (torch.float64, torch.float32, torch.float64):
        weight = convolution.to(dtype).weight
        weight.grad = None
        image = torch.rand(2, 4, 1, 1, dtype=dtype)
        convolution(image).sum().backward()
        known = TapGradient.of(weight)
        assert known is not None and weight.grad.dtype == dtype
        torch.testing.assert_close(weight.grad[0, :, 1, 1], image.sum((0, 2, 3)), rtol=1e-6, atol=0)
        known.release()


def test_memory_of_more_taps_is_cleared() -> None:
    convolution = layer()
    weight = convolution.weight
    for taps in (Taps((0, 2), (0, 2)), Taps((1, 2), (1, 2))):
        known = TapGradient.made_for(weight)
        seen = taps.sides[0] * taps.sides[1] * 4
        left, right = torch.rand(5, seen, dtype=torch.float64), torch.rand(5, 8, dtype=torch.float64)
        weight.grad = known.write_product(left, right, taps, weight)
        inside = taps.of(by_taps(weight.grad)).flatten(0, 2)
        torch.testing.assert_close(inside, left.T @ right, rtol=1e-12, atol=0)
        assert Taps.around(by_taps(weight.grad)) == taps
        known.release()
