"""Bootstrap intervals: ours next to pandas and scikit-learn in a loop, as published, on the same draws."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.record import RESULTS, Figure, cores, record
from evaluation import bootstrap
from evaluation.bootstrap import Resamples
from utils.cli import run_cli

T = TypeVar("T")
MEGABYTE = 2**20
TOLERANCE = 1e-9  # of the ends of intervals


@dataclass(frozen=True)
class BootstrapBenchmark:
    """Time AUROC and AUPRC of every resample and label; the published way on fewer resamples, and scaled."""

    samples: int = 11000
    """Samples, of which one in six is of a subject with another one."""
    labels: int = 25
    """Labels of a sample; the rarest is positive in 4, the commonest in 50 per cent, as phenotypes are."""
    resamples: int = 1000
    """Resamples of ours."""
    published_resamples: int = 20
    """Resamples of the published way, whose time is scaled to --resamples."""
    repeats: int = 3
    """Times that ours is timed; the median counts."""
    results: Path = RESULTS
    """File that the measured row is added to."""


def make_split(config: BootstrapBenchmark) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subject [n], truth [n, L] and probability [n, L] of made-up predictions with an AUROC about 0.7."""
    source = np.random.default_rng(0)
    shape = config.samples, config.labels
    truth = (source.random(shape) < np.geomspace(0.04, 0.5, config.labels)).astype(np.float32)
    logit = 0.75 * truth + source.normal(size=shape)
    subject = source.permutation(np.arange(config.samples) % max(1, config.samples * 11 // 12))
    return subject, truth, (1 / (1 + np.exp(-logit))).astype(np.float32)


def published(draws: Resamples, truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """[2, R, L]: takes the drawn rows of a frame, then asks scikit-learn for each label."""
    labels = truth.shape[1]
    frame = pd.DataFrame(np.hstack([truth, probability]))
    found = np.empty((2, draws.count, labels))
    for number in range(draws.count):
        times = draws.counts(range(number, number + 1))[0][draws.subject]
        drawn = frame.iloc[np.repeat(np.arange(len(frame)), times)]
        for label in range(labels):
            pair = drawn[label], drawn[labels + label]
            found[:, number, label] = roc_auc_score(*pair), average_precision_score(*pair)
    return found


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What `work` returns, its seconds of all cores together, which others on the machine hardly change, and
    the seconds that it took.
    """
    spent, began = time.process_time(), time.perf_counter()
    found = work()
    return found, time.process_time() - spent, time.perf_counter() - began


def peak(work: Callable[[], object]) -> float:
    """Megabytes that `work` holds at most, beyond what there was."""
    tracemalloc.start()
    work()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held / MEGABYTE


def largest_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest distance between the ends of the intervals of two [2, R, L]."""
    ends = [[bootstrap.interval(column) for area in found for column in area.T] for found in (ours, theirs)]
    return float(np.abs(np.subtract(*ends)).max())


def measure(config: BootstrapBenchmark) -> tuple[Figure, float, float]:
    """Core-seconds of both ways, how far their intervals lie apart, and the seconds that ours took.

    ValueError if that is more than rounding.
    """
    subject, truth, probability = make_split(config)
    draws, few = (Resamples.of(subject, n, seed=0) for n in (config.resamples, config.published_resamples))
    runs = [timed(lambda: bootstrap.areas(draws, truth, probability)) for _ in range(config.repeats)]
    theirs, part, _ = timed(lambda: published(few, truth, probability))
    gap = largest_gap(np.array(runs[0][0])[:, : few.count], theirs)
    if gap > TOLERANCE:
        raise ValueError(f"the intervals differ by {gap:.1e}, more than {TOLERANCE:.0e}")
    ours = float(np.median([spent for _, spent, _ in runs]))
    work = f"{config.samples} samples x {config.labels} labels x {config.resamples} resamples"
    scaled = part * draws.count / few.count
    held = peak(lambda: bootstrap.areas(draws, truth, probability))
    wall = float(np.median([wall for _, _, wall in runs]))
    return Figure(work, "core-s", ours, "published", scaled, held), gap, wall


def main(config: BootstrapBenchmark) -> None:
    """Measure both, print the table and add the row."""
    found, gap, wall = measure(config)
    print("AUROC and AUPRC of every resample, in seconds of all cores together")
    record(config.results, "bootstrap", ("numpy", "pandas", "scikit-learn"), [found])
    print(f"ours took {wall:.3g} s on {cores()} threads; the published way was timed on")
    print(f"{config.published_resamples} resamples and scaled; ends of intervals differ by {gap:.3g}")


if __name__ == "__main__":
    run_cli(main, BootstrapBenchmark)
