"""The loss and the probabilities of each kind of task."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from datasets.schema import FeatureBatch
from models.classifier import Classifier
from models.linear_probe import LinearProbe


def make_batch(labels: list[list[float]], features: int = 4) -> FeatureBatch:
    rows = torch.randn(len(labels), features, generator=torch.Generator().manual_seed(0))
    return FeatureBatch(rows, torch.tensor(labels), torch.arange(len(labels)))


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_the_loss_is_the_mean_over_known_labels(kind: str) -> None:
    classifier = Classifier(LinearProbe(nn.Linear(4, 2)), kind)
    batch = make_batch([[1.0, torch.nan], [0.0, 1.0], [torch.nan, torch.nan]])
    known = ~batch.labels.isnan()
    logits = classifier.fusion(batch)
    expected = functional.binary_cross_entropy_with_logits(logits[known], batch.labels[known])
    terms = classifier(batch)
    assert torch.allclose(terms["loss"], expected) and terms["count"] == 3


def test_the_ordinal_loss_is_the_mean_over_known_classes() -> None:
    classifier = Classifier(LinearProbe(nn.Linear(4, 10)), "ordinal")
    batch = make_batch([[9.0], [torch.nan], [0.0]])
    expected = functional.cross_entropy(classifier.fusion(batch)[[0, 2]], torch.tensor([9, 0]))
    terms = classifier(batch)
    assert torch.allclose(terms["loss"], expected) and terms["count"] == 2


@pytest.mark.parametrize(("kind", "outputs"), [("binary", 1), ("multilabel", 5), ("ordinal", 10)])
def test_a_batch_without_any_label_costs_nothing(kind: str, outputs: int) -> None:
    classifier = Classifier(LinearProbe(nn.Linear(4, outputs)), kind)
    labels = 1 if kind == "ordinal" else outputs
    loss = classifier(make_batch([[torch.nan] * labels] * 3))["loss"]
    loss.backward()
    assert loss == 0 and not classifier.fusion.linear.weight.grad.any()


@pytest.mark.parametrize(("kind", "outputs"), [("binary", 1), ("multilabel", 5), ("ordinal", 10)])
def test_predictions_are_probabilities(kind: str, outputs: int) -> None:
    classifier = Classifier(LinearProbe(nn.Linear(4, outputs)), kind)
    batch = make_batch([[0.0]] * 3)
    probabilities, logits = classifier.predict(batch), classifier.fusion(batch)
    assert probabilities.shape == (3, outputs)
    expected = functional.softmax(logits, dim=1) if kind == "ordinal" else 1 / (1 + (-logits).exp())
    assert torch.allclose(probabilities, expected.double())


@pytest.mark.parametrize("kind", ["binary", "ordinal"])
def test_half_precision_logits_still_give_exact_losses_and_probabilities(kind: str) -> None:
    classifier, batch = Classifier(LinearProbe(nn.Linear(4, 1)), kind), make_batch([[0.0]] * 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier.fusion(batch).dtype == torch.bfloat16
        assert classifier(batch)["loss"].dtype == torch.float32
        assert classifier.predict(batch).dtype == torch.float64


@pytest.mark.parametrize("kind", ["binary", "multilabel", "ordinal"])
def test_confident_predictions_do_not_tie(kind: str) -> None:
    """A sigmoid in float32 makes 1 of every logit from 17 on, and the ranking of those samples is lost."""
    logits = torch.arange(15.0, 30.0, 0.5)[:, None]
    logits = torch.cat([logits, torch.zeros_like(logits)], dim=1)[:, : 1 + (kind == "ordinal")]
    classifier = Classifier(nn.Identity(), kind)
    classifier.fusion.forward = lambda batch: logits
    probability = classifier.predict(make_batch([[0.0]] * len(logits)))[:, 0]
    assert (probability.diff() > 0).all()
