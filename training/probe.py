"""A linear probe: one layer, learnt in memory on features that stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.features import FeatureBatches
from datasets.schema import FeatureBatch
from models.classifier import Classifier
from models.linear_probe import LinearProbe
from training import optim
from training.optim import OptimConfig


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe is learnt: by AdamW, whose rate falls to a tenth after 60 and 80 % of the epochs."""

    epochs: int = 100
    """Passes over the training features; the pass that validates best counts."""
    lr: float = 0.01
    """Learning rate at the start."""
    weight_decay: float = 0.01
    """Weight decay per unit of learning rate."""

    def __post_init__(self) -> None:
        """ValueError, naming the flag, for a value that cannot work."""
        OptimConfig(lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs)


def train_probe(
    kind: str,
    outputs: int,
    batches: Mapping[str, FeatureBatches],
    config: ProbeConfig,
    seed: int,
    score: Callable[[Tensor], float],
) -> dict[str, Tensor]:
    """Probabilities [n, outputs] of every split, by the epoch of the probe with the largest score.

    `batches` has "train" to learn from and "val", on whose probabilities `score` judges every epoch; a score
    of NaN is below all others. The same seed and batches give the same probe; no other process takes part.
    """
    torch.manual_seed(seed)
    linear = nn.Linear(batches["train"].features.shape[1], outputs)
    probe = Classifier(LinearProbe(linear), kind).to(batches["train"].features.device)
    rates = OptimConfig(lr=config.lr, weight_decay=config.weight_decay, epochs=config.epochs, schedule="step")
    optimizer = optim.build_optimizer(rates, probe)
    best = -torch.inf
    found: dict[str, Tensor] = {}
    for epoch in range(config.epochs):
        _train_epoch(probe, batches["train"], optimizer, rates, epoch)
        value = score(_probabilities(probe, batches["val"]))
        if value > best or not found:
            best = value if value > best else best
            found = {split: _probabilities(probe, part) for split, part in batches.items()}
    return found


def _train_epoch(
    probe: Classifier,
    batches: FeatureBatches,
    optimizer: torch.optim.Optimizer,
    rates: OptimConfig,
    epoch: int,
) -> None:
    for step, batch in enumerate(batches.epoch(epoch)):
        for group in optimizer.param_groups:
            group["lr"] = optim.learning_rate(rates, epoch, step, len(batches))
        optimizer.zero_grad(set_to_none=True)
        probe(batch)["loss"].backward()
        optimizer.step()


@torch.inference_mode()
def _probabilities(probe: Classifier, batches: FeatureBatches) -> Tensor:
    """[n, outputs] of all samples in their order, at once: they are in memory already."""
    everyone = torch.arange(len(batches.features))
    return probe.predict(FeatureBatch(batches.features, batches.labels, everyone))
