"""The losses of the fusions against slow references in float64, and their gradients."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from models.fusion import losses

DRAW = torch.Generator().manual_seed(0)
NAN = math.nan


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=DRAW, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def entropy(p: float, target: float) -> float:
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(x) for x in row]
    return [weight / sum(weights) for weight in weights]


def test_means_are_over_what_the_mask_keeps() -> None:
    values = torch.tensor([[1.0, 2.0], [4.0, NAN]], dtype=torch.float64)
    mask = torch.tensor([[True, False], [True, False]])
    for mean in (losses.global_mean, losses.masked_mean):
        assert mean(values, mask) == 2.5 and mean(values, mask & False) == 0
        with torch.no_grad():
            assert mean(values, mask) == 2.5
    assert losses.global_mean(values, mask).dtype == torch.float64
    assert torch.equal(losses.global_sum(values[0]), values[0])


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_label_entropies_are_those_of_each_known_label(kind: str) -> None:
    logits, labels = draw(3, 2), torch.tensor([[1.0, NAN], [0.0, 1.0], [NAN, NAN]])
    entropies, known = losses.label_entropies(logits, labels, kind)
    assert known.tolist() == [[True, False], [True, True], [False, False]]
    for row, label in known.nonzero().tolist():
        expected = entropy(sigmoid(logits[row, label].item()), labels[row, label].item())
        assert entropies[row, label].item() == pytest.approx(expected, rel=1e-12)
    assert not entropies[~known].any()
    expected = entropies[known].mean()
    torch.testing.assert_close(losses.mean_entropy(logits, labels, kind), expected)
    chosen = torch.tensor([True, False, True])
    torch.testing.assert_close(losses.mean_entropy(logits, labels, kind, chosen), entropies[0, 0])


def test_an_ordinal_label_has_the_entropy_of_its_class() -> None:
    logits, labels = draw(3, 4), torch.tensor([[3.0], [NAN], [0.0]])
    entropies, known = losses.label_entropies(logits, labels, "ordinal")
    assert known.tolist() == [[True], [False], [True]] and entropies.shape == (3, 1)
    for row, label in ((0, 3), (2, 0)):
        expected = -math.log(softmax(logits[row].tolist())[label])
        assert entropies[row, 0].item() == pytest.approx(expected, rel=1e-12)
    assert entropies[1] == 0
    assert losses.label_entropies(logits.half(), labels, "ordinal")[0].dtype == torch.float32


def test_soft_or_is_the_logit_of_the_mean_probability() -> None:
    first, second = draw(5), draw(5)
    for a, b, pooled in zip(first.tolist(), second.tolist(), losses.soft_or(first, second), strict=True):
        formula = math.log(2 * math.exp(a + b) + math.exp(a) + math.exp(b))
        formula -= math.log(2 + math.exp(a) + math.exp(b))
        assert pooled.item() == pytest.approx(formula, rel=1e-12)
        assert sigmoid(formula) == pytest.approx((sigmoid(a) + sigmoid(b)) / 2, rel=1e-12)
    huge = torch.tensor([500.0])
    assert losses.soft_or(huge, huge).item() == pytest.approx(500)
    assert losses.soft_or(-huge, -huge).item() == pytest.approx(-500)


def test_the_divergence_is_that_of_coins() -> None:
    first, second = draw(4, 3), draw(4, 3)
    divergence = losses.jensen_shannon(first, second)
    for row in range(4):
        total = 0.0
        for a, b in zip(first[row].tolist(), second[row].tolist(), strict=True):
            p, q = sigmoid(a), sigmoid(b)
            middle = (p + q) / 2
            for x in (p, q):
                total += (x * math.log(x / middle) + (1 - x) * math.log((1 - x) / (1 - middle))) / 2
        assert divergence[row].item() == pytest.approx(total / 3, rel=1e-9)
    assert losses.jensen_shannon(first, first).abs().max() < 1e-12
    opposite = losses.jensen_shannon(torch.tensor([60.0], dtype=torch.float64), torch.tensor([-60.0]))
    assert opposite.item() == pytest.approx(math.log(2), rel=1e-9)
    assert gradcheck(losses.jensen_shannon, (first.requires_grad_(), second.requires_grad_()))
    saturated = torch.tensor([200.0, -200.0], requires_grad=True)
    losses.jensen_shannon(saturated, -saturated).backward()
    assert saturated.grad.isfinite().all()


def test_attention_is_ranked_within_each_class() -> None:
    attention, entropies = draw(4, 5, 3).softmax(dim=-1), draw(4, 5, 3).exp()
    valid = torch.rand(4, 5, generator=DRAW) < 0.7
    terms = []
    for row, label in valid.nonzero().tolist():
        for i, j in combinations(range(3), 2):
            weight, loss = attention[row, label], entropies[row, label]
            better, worse = (i, j) if loss[i] < loss[j] else (j, i)
            terms.append(max((weight[worse] - weight[better]).item(), 0.0))
    active = [term for term in terms if term > 0]
    expected = sum(active) / len(active)
    assert losses.attention_ranking(attention, entropies, valid).item() == pytest.approx(expected, rel=1e-9)
    assert losses.attention_ranking(attention, entropies, valid & False) == 0
    best_first = torch.tensor([[[0.5, 0.3, 0.2]]])
    assert losses.attention_ranking(best_first, torch.tensor([[[1.0, 2.0, 3.0]]]), valid[:1, :1] | True) == 0


def test_classes_of_one_sample_may_rank_the_tokens_differently() -> None:
    """Averaged over the classes, both tokens are equally good and equally attended: nothing to learn."""
    entropies = torch.tensor([[[1.0, 3.0, 2.0], [3.0, 1.0, 2.0]]])
    attention = torch.tensor([[[0.2, 0.4, 0.4], [0.4, 0.2, 0.4]]], requires_grad=True)
    losses.attention_ranking(attention, entropies, torch.ones(1, 2, dtype=torch.bool)).backward()
    assert attention.grad[0, 0, 0] < 0 < attention.grad[0, 0, 1]
    assert attention.grad[0, 1, 1] < 0 < attention.grad[0, 1, 0]


def test_variation_is_relative_and_zero_if_all_are_equal() -> None:
    totals = draw(6).exp()
    values = totals.tolist()
    mean = sum(values) / 6
    expected = sum((value - mean) ** 2 for value in values) / 6 / mean**2
    assert losses.squared_variation(totals).item() == pytest.approx(expected, rel=1e-6)
    assert losses.squared_variation(torch.full((4,), 3.0)) == 0 == losses.squared_variation(torch.zeros(4))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_load_is_the_chance_to_be_among_the_top_k(top_k: int) -> None:
    clean, deviation = draw(5, 4), draw(5, 4).exp()
    noisy = clean + draw(5, 4) * deviation
    load = losses.expected_load(clean, noisy, deviation, top_k)
    for row in range(5):
        for expert in range(4):
            others = sorted((noisy[row, i].item() for i in range(4) if i != expert), reverse=True)
            z = (clean[row, expert].item() - others[top_k - 1]) / deviation[row, expert].item()
            assert load[row, expert].item() == pytest.approx((1 + math.erf(z / math.sqrt(2))) / 2, rel=1e-9)


def test_kernels_and_distances_are_their_formulas() -> None:
    first, second, spread = draw(3, 4), draw(2, 4), torch.tensor(1.7, dtype=torch.float64)
    kernel = losses.gaussian_kernel(first, second, spread)
    for i in range(3):
        for j in range(2):
            squared = sum((a - b) ** 2 for a, b in zip(first[i].tolist(), second[j].tolist(), strict=True))
            expected = sum(math.exp(-squared / (factor * 1.7)) for factor in (0.5, 1, 2)) / 3
            assert kernel[i, j].item() == pytest.approx(expected, rel=1e-9)
    rows, present = draw(4, 3), torch.tensor([True, False, True, True])
    kept = [row for row, there in zip(rows.tolist(), present, strict=True) if there]
    pairs = [(a, b) for i, a in enumerate(kept) for j, b in enumerate(kept) if i != j]
    mean = sum((x - y) ** 2 for a, b in pairs for x, y in zip(a, b, strict=True)) / len(pairs)
    assert losses.mean_squared_distance(rows, present).item() == pytest.approx(mean, rel=1e-9)
    assert losses.mean_squared_distance(rows[:1], present[:1]) == pytest.approx(1e-6)
    assert losses.gaussian_kernel(rows, rows, spread).diagonal().eq(1).all()


def test_a_cut_graph_keeps_values_and_teaches_the_threshold() -> None:
    similarity = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    graph = losses.cut_graph(similarity, threshold)
    assert graph.tolist() == pytest.approx([0, 0, 0.9])
    graph.sum().backward()
    assert similarity.grad.tolist() == [0, 0, 1] and threshold.grad == -1


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_an_added_layer_learns_what_the_layers_before_miss(label: float) -> None:
    logits, before = draw(3, 2).requires_grad_(), draw(3, 2).requires_grad_()
    labels = torch.full((3, 2), label)
    labels[0, 0] = NAN
    losses_of = losses.boosted(logits, before, labels, "multilabel")
    assert losses_of[0, 0] == 0
    for row, output in ((0, 1), (1, 0), (2, 1)):
        target = label * (1 - sigmoid(before[row, output].item()) / 2)
        expected = entropy(sigmoid(logits[row, output].item()), target)
        assert losses_of[row, output].item() == pytest.approx(expected, rel=1e-9)
    losses_of.sum().backward()
    assert before.grad is None and logits.grad.any()


def test_the_boosted_loss_of_a_class_is_weighted_by_what_was_missed() -> None:
    logits, before = draw(3, 4), draw(3, 4)
    found = losses.boosted(logits, before, torch.tensor([[2.0], [NAN], [0.0]]), "ordinal")
    assert found.shape == (3, 1) and found[1] == 0
    for row, label in ((0, 2), (2, 0)):
        target = 1 - softmax(before[row].tolist())[label] / 2
        expected = -target * math.log(softmax(logits[row].tolist())[label])
        assert found[row, 0].item() == pytest.approx(expected, rel=1e-9)


def test_the_published_boosted_loss_has_no_minimum() -> None:
    """Cross-entropy minus half of that with target y p falls for ever; ours does not."""
    logits = torch.tensor([[5.0], [50.0], [500.0]], dtype=torch.float64)
    one, before = torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.float64)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    published = [
        bce(x, torch.ones_like(x)).item() - 0.5 * bce(x, torch.full_like(x, 0.5)).item() for x in logits
    ]
    assert published[0] > published[1] > published[2] and published[2] < -100
    assert losses.boosted(logits, before, one, "binary").min() > 0


@pytest.mark.parametrize("scores", [(0.6, 0.2), (0.2, 0.6), (0.5, 0.5), (0.0, 0.0)])
def test_the_better_encoder_is_slowed_down(scores: tuple[float, float]) -> None:
    strength = (1.5, 4.0)
    found = losses.slowdown(torch.tensor(scores), torch.tensor(strength)).tolist()
    gap = (scores[0] - scores[1]) / (sum(scores) or 1.0)
    expected = [1 - min(strength[0] * max(gap, 0), 0.9), 1 - min(strength[1] * max(-gap, 0), 0.9)]
    assert found == pytest.approx(expected)


def test_growth_compares_the_later_half_with_the_earlier() -> None:
    traces = torch.tensor([[1.0, 3.0, 2.0, 4.0], [4.0, 4.0, 1.0, 1.0]])
    assert losses.relative_growth(traces).tolist() == [0.5, -0.75]
    assert losses.relative_growth(torch.zeros(4)) == 0
