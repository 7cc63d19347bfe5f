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
    clip,
    gap_weight,
    retrieval_accuracy,
    siglip,
    simclr,
    vicreg,
)


def pairs(count: int, dim: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    image, ehr = torch.randn(2, count, dim, dtype=torch.float64, generator=draw)
    return image, ehr


Embeddings = list[list[float]]


def cosine(x: list[float], y: list[float]) -> float:
    return sum(map(operator.mul, x, y)) / math.hypot(*x) / math.hypot(*y)


def slow_simclr(
    image: Embeddings,
    ehr: Embeddings,
    temperature: float,
    keep_positive: bool,
    weight: list[float] | None = None,
) -> float:
    """Compute the loss by its formula, in loops over Python floats."""
    total = 0.0
    for i in range(len(image)):
        image_to_ehr = image_from_ehr = 0.0
        for j in range(len(image)):
            if j != i or keep_positive:
                image_to_ehr += math.exp(cosine(image[i], ehr[j]) / temperature)
                image_from_ehr += math.exp(cosine(image[j], ehr[i]) / temperature)
        positive = cosine(image[i], ehr[i]) / temperature
        terms = math.log(image_to_ehr) - positive + math.log(image_from_ehr) - positive
        total += terms if weight is None else weight[i] * terms
    return total / len(image)


def slow_siglip(image: Embeddings, ehr: Embeddings, temperature: float, bias: float) -> float:
    """Classify each image and EHR as a pair or not, in loops."""
    total = 0.0
    for i in range(len(image)):
        for j in range(len(ehr)):
            logit = cosine(image[i], ehr[j]) / temperature + bias
            probability = 1 / (1 + math.exp(-logit))
            total -= math.log(probability if i == j else 1 - probability)
    return total / len(image)


def slow_vicreg(image: Embeddings, ehr: Embeddings) -> dict[str, float]:
    """Compute the loss with the published weights, in loops over pairs and features."""
    count, dim = len(image), len(image[0])
    cells = [(n, d) for n in range(count) for d in range(dim)]
    invariance = sum((image[n][d] - ehr[n][d]) ** 2 for n, d in cells) / (count * dim)
    variance = covariance = 0.0
    for one in (image, ehr):
        mean = [sum(one[n][d] for n in range(count)) / count for d in range(dim)]
        for a in range(dim):
            for b in range(dim):
                entry = sum((one[n][a] - mean[a]) * (one[n][b] - mean[b]) for n in range(count)) / (count - 1)
                if a == b:
                    variance += max(0.0, 1 - math.sqrt(entry + 1e-4)) / dim / 2
                else:
                    covariance += entry**2 / dim
    loss = 25 * invariance + 25 * variance + covariance
    return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}


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


def test_the_temperature_is_the_published_one_unless_told() -> None:
    assert simclr(*pairs(5)) == simclr(*pairs(5), 0.1) != simclr(*pairs(5), 1.0)


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


any_pairs = given(count=st.integers(2, 9), dim=st.integers(1, 6), seed=st.integers(0, 10_000))


@settings(deadline=None, max_examples=30)
@any_pairs
def test_simclr_weights_the_terms_of_each_pair(count: int, dim: int, seed: int) -> None:
    image, ehr = pairs(count, dim, seed)
    weight = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for denominator in DENOMINATORS:
        keep = denominator == "full"
        expected = slow_simclr(image.tolist(), ehr.tolist(), 0.1, keep, weight.tolist())
        got = simclr(image, ehr, 0.1, denominator, weight).item()
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_pair_weighs_k_less_an_exponential_of_its_days() -> None:
    days = [0.0, 0.25, 3.0, -3.0]
    for k in (1.0, 2.5):
        expected = [k - math.exp(-k * abs(gap)) for gap in days]
        assert gap_weight(torch.tensor(days, dtype=torch.float64), k).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"--k 0.5: .*; use 1 or more"):
        gap_weight(torch.zeros(1), 0.5)


@settings(deadline=None, max_examples=30)
@any_pairs
def test_clip_is_the_mean_of_two_cross_entropies(count: int, dim: int, seed: int) -> None:
    image, ehr = pairs(count, dim, seed)
    expected = slow_simclr(image.tolist(), ehr.tolist(), 0.2, keep_positive=True) / 2
    assert clip(image, ehr, 0.2).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=30)
@any_pairs
def test_siglip_is_its_formula(count: int, dim: int, seed: int) -> None:
    image, ehr = pairs(count, dim, seed)
    expected = slow_siglip(image.tolist(), ehr.tolist(), 0.2, -3.0)
    assert siglip(image, ehr, 0.2, -3.0).item() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=30)
@any_pairs
def test_vicreg_is_its_formula(count: int, dim: int, seed: int) -> None:
    image, ehr = (0.7 * embedding for embedding in pairs(count, dim, seed))  # some features vary too little
    got = {name: term.item() for name, term in vicreg(image, ehr).items()}
    assert got == pytest.approx(slow_vicreg(image.tolist(), ehr.tolist()), rel=1e-9, abs=1e-9)


def test_vicregs_covariance_keeps_its_digits_where_one_dimension_dominates() -> None:
    image, ehr = pairs(32, 16)
    image[:, 3] *= 1e4
    ehr[:, 5] *= 1e4
    exact = vicreg(image, ehr)["covariance"]
    single = vicreg(image.float(), ehr.float())["covariance"]
    assert single.item() == pytest.approx(exact.item(), rel=1e-5)


def test_vicreg_has_the_same_terms_of_a_pair_alone() -> None:
    assert list(vicreg(*pairs(1))) == list(vicreg(*pairs(2))) == list(slow_vicreg([[0.0]] * 2, [[0.0]] * 2))


def test_vicreg_weights_its_terms() -> None:
    terms = vicreg(*pairs(5), 2.0, 3.0, 5.0)
    sums = 2 * terms["invariance"] + 3 * terms["variance"] + 5 * terms["covariance"]
    assert terms["loss"].item() == pytest.approx(sums.item())


def test_vicreg_of_collapsed_embeddings_costs_the_whole_variance_and_can_leave() -> None:
    image, ehr = (torch.ones(4, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    terms = vicreg(image, ehr)
    terms["loss"].backward()
    assert terms["variance"].item() == pytest.approx(1 - 1e-2)  # two halves of 1 - sqrt(1e-4)
    assert terms["invariance"] == terms["covariance"] == 0 and image.grad.isfinite().all()


LEARNT = {"temperature": 0.3, "bias": -2.0}  # what an objective may learn beside the embeddings
LOSSES = {
    "weighted": lambda x, y, temperature, bias: simclr(
        x, y, temperature, weight=torch.arange(1.0, 1 + len(x))
    ),
    "clip": lambda x, y, temperature, bias: clip(x, y, temperature),
    "siglip": siglip,
    "vicreg": lambda x, y, temperature, bias: vicreg(x, y)["loss"],
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@pytest.mark.parametrize("count", [2, 5])
def test_a_loss_has_the_gradient_of_its_value(name: str, count: int) -> None:
    learnt = [torch.tensor(value, dtype=torch.float64).requires_grad_() for value in LEARNT.values()]
    embeddings = [embedding.requires_grad_() for embedding in pairs(count)]
    assert torch.autograd.gradcheck(LOSSES[name], (*embeddings, *learnt))


@every_loss
def test_swapping_modalities_keeps_every_loss(name: str) -> None:
    image, ehr = pairs(7)
    there, back = (LOSSES[name](*both, *LEARNT.values()).item() for both in ((image, ehr), (ehr, image)))
    assert there == pytest.approx(back, rel=1e-12)


@pytest.mark.parametrize("name", ["clip", "siglip", "vicreg"])
def test_the_order_of_pairs_keeps_every_loss(name: str) -> None:
    image, ehr = pairs(7)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    now, then = (LOSSES[name](image[o], ehr[o], *LEARNT.values()).item() for o in (slice(None), order))
    assert now == pytest.approx(then, rel=1e-12)


@pytest.mark.parametrize("name", ["weighted", "clip", "vicreg"])
@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pairs_have_no_effect_on_other_losses_either(name: str, count: int) -> None:
    image, ehr = (x.requires_grad_() for x in pairs(count))
    loss = LOSSES[name](image, ehr, *LEARNT.values())
    loss.backward()
    assert loss.item() == 0 and not image.grad.any() and not ehr.grad.any()


def test_siglip_learns_from_a_single_pair_and_not_from_none() -> None:
    for count, learns in ((0, False), (1, True)):
        image, ehr = (x.requires_grad_() for x in pairs(count))
        loss = siglip(image, ehr, *LEARNT.values())
        loss.backward()
        assert (loss.item() > 0) == learns == bool(image.grad.any())
    assert loss.item() == pytest.approx(slow_siglip(image.tolist(), ehr.tolist(), *LEARNT.values()))


@every_loss
def test_every_loss_widens_half_precision_under_autocast_too(name: str) -> None:
    image, ehr = (x.to(torch.bfloat16) for x in pairs(6))
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](image, ehr, *LEARNT.values())
    assert loss.dtype == torch.float32
    exact = LOSSES[name](image.double(), ehr.double(), *LEARNT.values()).item()
    assert loss.item() == pytest.approx(exact, rel=1e-5)


@every_loss
def test_every_loss_refuses_embeddings_of_two_widths(name: str) -> None:
    with pytest.raises(ValueError, match="give both heads the same width"):
        LOSSES[name](pairs(3)[0], pairs(3, dim=4)[0], *LEARNT.values())


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
