"""Losses against slow references written as sums, and their symmetries."""

import math
import operator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.losses import (
    DENOMINATORS,
    binary_cross_entropies,
    class_cross_entropies,
    retrieval_accuracy,
    simclr,
)


def pairs(count: int, dim: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    image, ehr = torch.randn(2, count, dim, dtype=torch.float64, generator=draw)
    return image, ehr


Embeddings = list[list[float]]


def slow_simclr(image: Embeddings, ehr: Embeddings, temperature: float, keep_positive: bool) -> float:
    """The loss as its formula reads: two loops, plain Python floats."""

    def cosine(x: list[float], y: list[float]) -> float:
        return sum(map(operator.mul, x, y)) / math.hypot(*x) / math.hypot(*y)

    total = 0.0
    for i in range(len(image)):
        image_to_ehr = image_from_ehr = 0.0
        for j in range(len(image)):
            if j != i or keep_positive:
                image_to_ehr += math.exp(cosine(image[i], ehr[j]) / temperature)
                image_from_ehr += math.exp(cosine(image[j], ehr[i]) / temperature)
        positive = cosine(image[i], ehr[i]) / temperature
        total += math.log(image_to_ehr) - positive + math.log(image_from_ehr) - positive
    return total / len(image)


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(2, 9),
    dim=st.integers(1, 6),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    denominator=st.sampled_from(DENOMINATORS),
    seed=st.integers(0, 10_000),
)
def test_simclr_is_its_formula(count: int, dim: int, temperature: float, denominator: str, seed: int) -> None:
    image, ehr = pairs(count, dim, seed)
    expected = slow_simclr(image.tolist(), ehr.tolist(), temperature, denominator == "full")
    assert simclr(image, ehr, temperature, denominator).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("count", [2, 6])
def test_simclr_has_the_gradient_of_its_value(denominator: str, count: int) -> None:
    image, ehr = (x.requires_grad_() for x in pairs(count))
    assert torch.autograd.gradcheck(lambda x, y: simclr(x, y, 0.2, denominator), (image, ehr))


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_swapping_modalities_keeps_the_loss(denominator: str) -> None:
    image, ehr = pairs(7)
    swapped = simclr(ehr, image, 0.1, denominator)
    assert torch.allclose(simclr(image, ehr, 0.1, denominator), swapped, rtol=1e-12)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_neither_the_order_of_pairs_nor_the_length_of_embeddings_matters(denominator: str) -> None:
    image, ehr = pairs(7)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    changed = simclr(2.5 * image[order], 0.1 * ehr[order], 0.1, denominator)
    assert torch.allclose(simclr(image, ehr, 0.1, denominator), changed, rtol=1e-10)


def test_full_is_twice_the_clip_loss() -> None:
    image, ehr = pairs(8)
    scores = functional.normalize(image) @ functional.normalize(ehr).T / 0.1
    target = torch.arange(8)
    clip = (functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)) / 2
    assert torch.allclose(simclr(image, ehr, 0.1, "full"), 2 * clip)


def test_two_pairs_decoupled_is_the_wrong_pairing_minus_the_right_one() -> None:
    image, ehr = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # cosines: right 1, 0.8; wrong 0.6, 0. Each wrong one is the sole negative of one pair in each direction.
    assert simclr(image, ehr, 1.0).item() == pytest.approx((0.6 + 0.0) - (1.0 + 0.8))


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pairs_are_a_step_without_effect(denominator: str, count: int) -> None:
    image, ehr = (x.requires_grad_() for x in pairs(count))
    loss = simclr(image, ehr, 0.1, denominator)
    loss.backward()
    assert loss.item() == 0 and not image.grad.any() and not ehr.grad.any()


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_half_precision_is_widened_under_autocast_too(denominator: str) -> None:
    image, ehr = (x.to(torch.bfloat16) for x in pairs(6))
    with torch.autocast("cpu", torch.bfloat16):
        loss = simclr(image, ehr, 0.1, denominator)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss.double(), simclr(image.double(), ehr.double(), 0.1, denominator), rtol=1e-5)


def test_a_low_temperature_does_not_overflow() -> None:
    image, ehr = (x.float().requires_grad_() for x in pairs(6))
    loss = simclr(image, ehr, 0.001)
    loss.backward()
    assert loss.isfinite() and image.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, "half"), r"--denominator half: use one of decoupled, full"),
        ((0.0, "full"), r"--temperature 0.0: must be positive"),
    ],
)
def test_simclr_refuses_what_it_does_not_know(arguments: tuple[float, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simclr(*pairs(3), *arguments)


def test_simclr_refuses_embeddings_of_two_widths() -> None:
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3, 4\)"):
        simclr(pairs(3)[0], pairs(3, dim=4)[0])


def test_retrieval_counts_both_directions() -> None:
    image = torch.eye(3)
    ehr = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.5, 0.0], [0.0, 0.0, 1.0]])
    # Images find EHR 0, 1, 2: all right. EHR 1 finds image 0: two of three right.
    assert retrieval_accuracy(image, ehr).item() == pytest.approx((1 + 2 / 3) / 2)
    assert retrieval_accuracy(image[:0], ehr[:0]).item() == 0


def test_binary_cross_entropy_sums_known_labels_alone() -> None:
    logits = torch.tensor([[0.3, -2.0], [4.0, 0.0]], requires_grad=True)
    labels = torch.tensor([[1.0, torch.nan], [0.0, torch.nan]])
    total, known = binary_cross_entropies(logits, labels)
    assert total.item() == pytest.approx(math.log(1 + math.exp(-0.3)) + math.log(1 + math.exp(4)))
    assert known == 2
    total.backward()
    assert logits.grad[:, 1].tolist() == [0, 0]


def test_class_cross_entropy_sums_known_rows_alone() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 9.0]], requires_grad=True)
    total, known = class_cross_entropies(logits, torch.tensor([[0.0], [torch.nan]]))
    assert total.item() == pytest.approx(math.log(math.e + math.e**2 + math.e**3) - 1)
    assert known == 1
    total.backward()
    assert logits.grad[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("loss", [binary_cross_entropies, class_cross_entropies])
def test_nothing_known_costs_nothing(loss) -> None:
    logits = torch.randn(2, 1, requires_grad=True)
    total, known = loss(logits, torch.full((2, 1), torch.nan))
    total.backward()
    assert total == 0 and known == 0 and not logits.grad.any()
