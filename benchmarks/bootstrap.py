"""Compare our bootstrap with a loop over pandas and scikit-learn, as published, on the same resamples."""

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

from benchmarks.record import RESULTS, Figure, record
from evaluation import bootstrap
from evaluation.bootstrap import Resamples
from utils.cli import run_cli
from utils.machine import available_cpus

T = TypeVar("T")
MEBIBYTE = 2**20
TOLERANCE = 1e-9  # largest difference between the ends of our intervals and theirs


@dataclass(frozen=True)
class BootstrapBenchmark:
    """Time AUROC and AUPRC of all resamples and labels; the published way on fewer resamples, scaled up."""

    samples: int = 11000
    """Samples; one in six is of a subject that has two."""
    labels: int = 25
    """Labels per sample; 4 % (the rarest) to 50 % (the most common) are positive, as of the phenotypes."""
    resamples: int = 1000
    """Resamples that our bootstrap computes."""
    published_resamples: int = 20
    """Resamples that the published way computes; its time is scaled to --resamples."""
    repeats: int = 3
    """How often ours is timed; the median counts."""
    results: Path = RESULTS
    """CSV file that the measured row is appended to."""


def make_split(config: BootstrapBenchmark) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return subject [n], truth [n, L] and probability [n, L] of random predictions, AUROC near 0.7."""
    source = np.random.default_rng(0)
    shape = config.samples, config.labels
    truth = (source.random(shape) < np.geomspace(0.04, 0.5, config.labels)).astype(np.float32)
    logit = 0.75 * truth + source.normal(size=shape)
    subject = source.permutation(np.arange(config.samples) % max(1, config.samples * 11 // 12))
    return subject, truth, (1 / (1 + np.exp(-logit))).astype(np.float32)


def published(draws: Resamples, truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return AUROC and AUPRC [2, R, L]: select the drawn rows of a frame, then score each label."""
    labels = truth.shape[1]
    frame = pd.DataFrame(np.hstack([truth, probability]))
    areas = np.empty((2, draws.count, labels))
    for number in range(draws.count):
        times = draws.counts(range(number, number + 1))[0][draws.subject]
        sample = frame.iloc[np.repeat(np.arange(len(frame)), times)]
        for label in range(labels):
            pair = sample[label], sample[labels + label]
            areas[:, number, label] = roc_auc_score(*pair), average_precision_score(*pair)
    return areas


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """Return the result of `work`, its core-seconds, which other processes hardly change, and its seconds."""
    core_started, started = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - core_started, time.perf_counter() - started


def peak(work: Callable[[], object]) -> float:
    """Return the peak memory that `work` allocates, in MiB."""
    tracemalloc.start()
    work()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak_bytes / MEBIBYTE


def largest_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference between the ends of the intervals of two arrays [2, R, L]."""
    ends = [
        [bootstrap.percentile_interval(column) for area in areas for column in area.T]
        for areas in (ours, theirs)
    ]
    return float(np.abs(np.subtract(*ends)).max())


def measure(config: BootstrapBenchmark) -> tuple[Figure, float, float]:
    """Return the core-seconds of both ways, how far their intervals differ, and the seconds that ours took.

    Raises:
        ValueError: the intervals differ by more than rounding.
    """
    subject, truth, probability = make_split(config)
    few = Resamples.of(subject, config.published_resamples, seed=0)

    def ours_from_the_start() -> np.ndarray:  # draws are kept once they are made
        draws = Resamples.of(subject, config.resamples, seed=0)
        return np.array(bootstrap.areas(draws, truth, probability))

    runs = [timed(ours_from_the_start) for _ in range(config.repeats)]
    theirs, part, _ = timed(lambda: published(few, truth, probability))
    gap = largest_gap(runs[0][0][:, : few.count], theirs)
    if gap > TOLERANCE:
        raise ValueError(f"the intervals differ by {gap:.1e}, more than {TOLERANCE:.0e}")
    ours = float(np.median([core_seconds for _, core_seconds, _ in runs]))
    work = f"{config.samples} samples x {config.labels} labels x {config.resamples} resamples"
    scaled = part * config.resamples / few.count
    peak_mb = peak(ours_from_the_start)
    seconds = float(np.median([seconds for _, _, seconds in runs]))
    return Figure(work, "core-s", ours, "published", scaled, peak_mb), gap, seconds


def main(config: BootstrapBenchmark) -> None:
    """Measure both, print the table and append the row."""
    figure, gap, seconds = measure(config)
    print("AUROC and AUPRC of every resample, in core-seconds")
    record(config.results, "bootstrap", ("numpy", "pandas", "scikit-learn"), [figure])
    print(f"ours took {seconds:.3g} s on {available_cpus()} threads; the published way was timed on")
    print(f"{config.published_resamples} resamples and scaled; ends of intervals differ by {gap:.3g}")


if __name__ == "__main__":
    run_cli(main, BootstrapBenchmark)
