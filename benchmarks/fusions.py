"""Compare the fusions in cost: parameters, operations, and samples per second in training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pack_sequence
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import machine, table
from datasets.schema import Batch, channel_count, variables
from models.classifier import Classifier, ClassifierConfig, build_classifier
from models.encoders import EncoderConfig
from models.fusion import FUSIONS, FusionConfig
from utils.cli import run_cli

REFERENCE = "concatenation"


@dataclass(frozen=True)
class FusionsBenchmark:
    """Print parameters, operations of a forward pass, and training speed relative to concatenation.

    All fusions train on the same batch, one after the other in each round; the ratio is the median over
    the rounds.
    """

    batch_size: int = 16
    """Samples of the batch; every second one has an X-ray."""
    hours: int = 48
    """Hours of each sample."""
    image_size: int = 224
    """Side of the X-rays, in pixels."""
    ehr_dim: int = 256
    """Width of the LSTM, which has two layers."""
    vision_backbone: str = "resnet34"
    """Name of the image encoder, any ResNet or DenseNet of torchvision."""
    rounds: int = 3
    """Number of rounds over all fusions."""


def make_batch(config: FusionsBenchmark) -> Batch:
    """Return a random batch in which a third of the values is observed."""
    draw = torch.Generator().manual_seed(0)
    size, first_mask = config.batch_size, variables()[0].mask_channel
    hours = torch.randn(size, config.hours, channel_count(), generator=draw)
    hours[..., first_mask:] = (hours[..., first_mask:] > 0.43).float()
    has_cxr = torch.arange(size) % 2 == 0
    return Batch(
        ehr=pack_sequence(list(hours), enforce_sorted=False),
        stay=torch.arange(size),
        last=torch.full((size,), config.hours - 1),
        hours=torch.full((size,), config.hours),
        cxr=torch.rand(int(has_cxr.sum()), 1, config.image_size, config.image_size, generator=draw),
        image=torch.where(has_cxr, has_cxr.cumsum(0) - 1, -1),
        paired=has_cxr.nonzero()[:, 0],
        has_ehr=torch.ones(size, dtype=torch.bool),
        has_cxr=has_cxr,
        labels=torch.randint(0, 2, (size, 25), generator=draw).float(),
        row=torch.arange(size),
        gap_days=torch.where(has_cxr, 0.5, torch.nan),
    )


def make_classifier(config: FusionsBenchmark, fusion: str) -> Classifier:
    """Build a classifier of 25 labels in the published shape."""
    encoders = EncoderConfig(
        ehr_dim=config.ehr_dim, ehr_layers=2, ehr_dropout=0.3, vision_backbone=config.vision_backbone
    )
    built = ClassifierConfig(fusion, "multilabel", 25, encoders, fusion_settings=FusionConfig())
    return build_classifier(built, download=False).train()


def training_step(classifier: Classifier, batch: Batch) -> Callable[[], None]:
    """Return what takes a training step."""
    weights = [weight for weight in classifier.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        classifier(batch)["loss"].backward()
        classifier.after_backward()
        optimizer.step()

    return step


def operations(classifier: Classifier, batch: Batch) -> float:
    """Return the multiplications and additions of a sample's forward pass, without the LSTM's."""
    counter = FlopCounterMode(display=False)
    classifier.requires_grad_(False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        classifier.predict(batch)
    return counter.get_total_flops() / len(batch.row)


def seconds(step: Callable[[], None]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main(config: FusionsBenchmark) -> None:
    """Measure and print a row for each fusion."""
    batch = make_batch(config)
    times: dict[str, list[float]] = {name: [] for name in FUSIONS}
    sizes, counts = {}, {}
    for name in FUSIONS:
        classifier = make_classifier(config, name)
        sizes[name] = sum(weight.numel() for weight in classifier.parameters()) / 1e6
        counts[name] = operations(classifier.eval(), batch) / 1e9
    for _ in range(config.rounds):
        for name in FUSIONS:
            step = training_step(make_classifier(config, name), batch)
            step()
            times[name].append(seconds(step))
    reference = np.array(times[REFERENCE])
    rows = [["fusion", "million parameters", "GFLOPs a sample", "samples/s", "relative"]]
    for name in FUSIONS:
        ratio = np.median(reference / np.array(times[name]))
        speed = config.batch_size / np.median(times[name])
        rows.append([name, f"{sizes[name]:.1f}", f"{counts[name]:.2f}", f"{speed:.1f}", f"{ratio:.2f}"])
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    run_cli(main, FusionsBenchmark)
