"""The metrics on the sphere against slow references, and how they show a collapse."""

import math

import pytest
import torch
from torch import Tensor

from models.embeddings import sphere_metrics


def slow_metrics(image: Tensor, ehr: Tensor) -> dict[str, float]:
    """Compute the metrics in float64, by loops over samples, dimensions and pairs."""
    directions = {"image": [], "ehr": []}
    for name, rows in (("image", image.double().tolist()), ("ehr", ehr.double().tolist())):
        for row in rows:
            length = math.sqrt(sum(x * x for x in row))
            directions[name].append([x / length for x in row])
    metrics = {}
    for name, rows in directions.items():
        deviations = []
        for column in zip(*rows, strict=True):
            mean = sum(column) / len(column)
            deviations.append(math.sqrt(sum((x - mean) ** 2 for x in column) / (len(column) - 1)))
        metrics[f"{name}_deviation"] = sum(deviations) / len(deviations) * math.sqrt(len(deviations))
    partners = zip(directions["image"], directions["ehr"], strict=True)
    metrics["alignment"] = sum(math.dist(a, b) ** 2 for a, b in partners) / len(image)
    logs = []
    for rows in directions.values():
        couples = [(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        logs.append(math.log(sum(math.exp(-2 * math.dist(a, b) ** 2) for a, b in couples) / len(couples)))
    return metrics | {"uniformity": sum(logs) / 2}


@pytest.mark.parametrize(("pairs", "dim"), [(2, 3), (5, 4), (17, 9)])
def test_the_measures_are_those_of_a_slow_reference(pairs: int, dim: int) -> None:
    torch.manual_seed(pairs)
    image, ehr = torch.randn(pairs, dim) + 0.3, 5 * torch.randn(pairs, dim)
    metrics = {name: value.item() for name, value in sphere_metrics(image, ehr).items()}
    assert metrics == pytest.approx(slow_metrics(image, ehr), rel=1e-5)


def test_a_collapse_of_one_modality_is_seen_whatever_its_length() -> None:
    torch.manual_seed(0)
    image, ehr = torch.randn(256, 64), torch.randn(64) * torch.rand(256, 1)
    metrics = {name: value.item() for name, value in sphere_metrics(image, ehr).items()}
    assert metrics["image_deviation"] == pytest.approx(1.0, abs=0.02)
    assert metrics["ehr_deviation"] < 1e-5
    both = sphere_metrics(ehr, ehr)
    assert both["uniformity"].item() == pytest.approx(0, abs=1e-5) and both["alignment"].item() == 0


@pytest.mark.parametrize("pairs", [0, 1])
def test_too_few_pairs_to_tell_are_zeros(pairs: int) -> None:
    assert all(
        value.item() == 0 for value in sphere_metrics(torch.randn(pairs, 4), torch.randn(pairs, 4)).values()
    )


def test_half_precision_is_widened_and_no_gradient_is_kept() -> None:
    image = torch.randn(8, 4, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        metrics = sphere_metrics(image, image)
    assert all(value.dtype is torch.float32 and not value.requires_grad for value in metrics.values())
