"""Time caching the features of X-rays by each family of image encoders, with random weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import child
from benchmarks.random_store import write_random_store
from benchmarks.record import machine, table
from datasets.data_config import DataConfig
from datasets.features import UniqueInputs
from datasets.samples import load_samples
from datasets.store import Store
from models.classifier import ClassifierConfig, build_classifier
from models.encoders import EncoderConfig, VisionEncoder
from models.encoders.families import FAMILIES
from models.fusion import Fusion
from tasks import TASKS
from training.feature_cache import FeatureCache, cached_features
from utils.cli import run_cli
from utils.distributed import setup
from utils.machine import available_cpus

TASK = TASKS["phenotyping"]


@dataclass(frozen=True)
class VisionBenchmark:
    """Encode X-rays of a random store with each family and keep the features; read them again."""

    images: int = 16
    """X-rays to encode; seconds for 1,000 are in proportion."""
    families: tuple[str, ...] = tuple(FAMILIES)
    """Families to time; their weights are random."""
    scratch: Path = Path("data/benchmarks")
    """Folder for the store and the features, which are removed at the end."""
    device: str = "auto"
    """Device of the encoder."""


def measure(config: VisionBenchmark, store: Store, name: str) -> list[str]:
    """Return a row: family, tensors, size, feature, and seconds for 1,000 X-rays, encoded and read again."""
    process = setup(config.device)
    encoders = EncoderConfig(vision_backbone=name)
    classifier = build_classifier(ClassifierConfig("cxr", TASK.kind, TASK.outputs, encoders)).eval()
    fusion = classifier.fusion.to(process.device)
    assert isinstance(fusion, Fusion) and isinstance(fusion.cxr_encoder, VisionEncoder)
    encoder = fusion.cxr_encoder
    data = DataConfig(store.folder, data_pairs="cxr", image_size=encoder.size)
    samples = {"train": load_samples(store, TASK, "train", data, 0)}
    inputs = UniqueInputs(store, samples, "cxr", data, process, encoder.crop)
    cache = FeatureCache.of(store, encoder, f"{encoder.size}")
    clock = time.process_time if process.device.type == "cpu" else time.perf_counter
    seconds = []
    for _ in range(2):
        start = clock()
        features = cached_features(cache, fusion.encode_cxr, inputs)
        seconds.append(1000 * (clock() - start) / inputs.count)
    tensors = len(encoder.network.state_dict())
    return [name, str(tensors), str(encoder.size), str(features.shape[1]), *(f"{s:.3g}" for s in seconds)]


def main(config: VisionBenchmark) -> None:
    """Measure and print a row for each family."""
    unit = "core-s" if setup(config.device).device.type == "cpu" else "s"  # a busy machine counts too
    rows = [["family", "tensors", "pixels", "feature", f"{unit} for 1,000 X-rays", f"{unit}, read again"]]
    with child.scratch(config.scratch) as folder:
        hours = {split: np.full(config.images, 24, np.int32) for split in ("train", "val", "test")}
        store = Store.open(write_random_store(folder / "store", hours))
        rows += [measure(config, store, name) for name in config.families]
    print(f"{machine()}, {available_cpus()} cores, {config.images} X-rays each\n\n{table(rows)}")


if __name__ == "__main__":
    run_cli(main, VisionBenchmark)
