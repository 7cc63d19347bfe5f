"""A linear probe: one layer, trained in memory on fixed features."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from datasets.features import FeatureBatches
from datasets.schema import FeatureBatch
from models.classifier import Classifier
from models.linear_probe import LinearProbe
from training.optim import OptimConfig, build_optimizer, learning_rate
from training.select_epoch_config import ProbeConfig


def train_probe(
    kind: str,
    outputs: int,
    batches: Mapping[str, FeatureBatches],
    config: ProbeConfig,
    seed: int,
    score: Callable[[Tensor], float],
    linear: nn.Linear | None = None,
) -> dict[str, Tensor]:
    """Train a probe in this process alone; the same seed and batches give the same probe.

    `score` rates the probabilities of "val" after each epoch; NaN is worse than any number. Returns {split:
    probabilities [n, outputs]} of the epoch with the largest score, the first of equals. `linear`, if given,
    ends as the layer of that epoch; where it begins makes no difference.
    """
    torch.manual_seed(seed)
    if linear is None:
        linear = nn.Linear(batches["train"].features.shape[1], outputs)
    else:
        linear.reset_parameters()
    probe = Classifier(LinearProbe(linear), kind).to(batches["train"].features.device)
    optim = config.optim()
    optimizer = build_optimizer(optim, probe)
    best_score = -torch.inf
    best: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for epoch in range(config.epochs):
        _train_epoch(probe, batches["train"], optimizer, optim, epoch)
        value = score(_probabilities(probe, batches["val"]))
        if value > best_score or not best:
            best_score = max(best_score, value)
            best = {split: _probabilities(probe, part) for split, part in batches.items()}
            weights = {name: weight.clone() for name, weight in linear.state_dict().items()}
    linear.load_state_dict(weights)
    return best


def _train_epoch(
    probe: Classifier,
    batches: FeatureBatches,
    optimizer: torch.optim.Optimizer,
    optim: OptimConfig,
    epoch: int,
) -> None:
    for step, batch in enumerate(batches.epoch(epoch)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(optim, epoch, step, len(batches))
        optimizer.zero_grad(set_to_none=True)
        probe(batch)["loss"].backward()
        optimizer.step()


@torch.inference_mode()
def _probabilities(probe: Classifier, batches: FeatureBatches) -> Tensor:
    """Return [n, outputs] for all samples in their order, in one batch, since they are in memory."""
    rows = torch.arange(len(batches.features))
    return probe.predict(FeatureBatch(batches.features, batches.labels, rows))
