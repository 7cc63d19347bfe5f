"""A probe is the layer of its best validation epoch, and equal seeds give equal probes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.features import FeatureBatches
from evaluation import metrics
from training.probe import train_probe
from training.select_epoch_config import ProbeConfig


def batches(separable: bool = True) -> dict[str, FeatureBatches]:
    """Features of two splits; the label is the sign of their first column, or nothing in them."""
    rng = np.random.default_rng(0)
    made = {}
    for split, n in (("train", 300), ("val", 100)):
        features = rng.normal(size=(n, 5)).astype(np.float32)
        labels = (features[:, :1] > 0) if separable else rng.integers(0, 2, (n, 1))
        tensors = (torch.from_numpy(features), torch.from_numpy(labels.astype(np.float32)))
        made[split] = FeatureBatches(*tensors, 64, train=split == "train")
    return made


def test_a_probe_learns_what_one_layer_can() -> None:
    data = batches()
    truth = data["val"].labels[:, 0].numpy()
    probabilities = train_probe(
        "binary", 1, data, ProbeConfig(epochs=40), 0, lambda p: metrics.auroc(truth, p[:, 0].numpy())
    )
    assert metrics.auroc(truth, probabilities["val"][:, 0].numpy()) > 0.99
    assert probabilities["train"].shape == (300, 1)


@pytest.mark.parametrize("best", [0, 3, 5])
def test_the_epoch_with_the_largest_score_counts(best: int) -> None:
    seen: list[Tensor] = []

    def score(probability: Tensor) -> float:
        seen.append(probability)
        return [0.5, float("nan"), 0.4, 0.5, 0.5, 0.2][len(seen) - 1] + (len(seen) - 1 == best)

    probabilities = train_probe("binary", 1, batches(), ProbeConfig(epochs=6), 0, score)
    assert len(seen) == 6 and torch.equal(probabilities["val"], seen[best])
    assert not any(torch.equal(seen[best], other) for i, other in enumerate(seen) if i != best)


def test_a_probe_without_any_score_is_the_first_epochs() -> None:
    seen: list[Tensor] = []
    probabilities = train_probe(
        "binary", 1, batches(), ProbeConfig(epochs=3), 0, lambda p: seen.append(p) or float("nan")
    )
    assert torch.equal(probabilities["val"], seen[0])


def test_equal_seeds_give_equal_probes() -> None:
    one, same, other = (
        train_probe("binary", 1, batches(False), ProbeConfig(epochs=2), seed, lambda p: 0.0)["val"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_values_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="--lr 0 is out of range; use a number above 0"):
        ProbeConfig(lr=0)


def test_a_given_layer_ends_as_the_best_epochs() -> None:
    seen: list[Tensor] = []
    linear, data = torch.nn.Linear(5, 1), batches()

    def score(probability: Tensor) -> float:
        seen.append(probability)
        return [0.1, 0.9, 0.2][len(seen) - 1]

    probabilities = train_probe("binary", 1, data, ProbeConfig(epochs=3), 0, score, linear)
    own = linear(data["val"].features).double().sigmoid()
    assert torch.allclose(own, seen[1], atol=1e-6) and torch.equal(probabilities["val"], seen[1])
    again = train_probe("binary", 1, data, ProbeConfig(epochs=3), 0, lambda p: 0.0)
    assert torch.equal(again["val"], seen[0])  # where the layer began makes no difference
