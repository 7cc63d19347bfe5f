"""Time the image cache on full-size X-rays, against decoding alone and published resizing; open a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from PIL import Image

from benchmarks import child
from benchmarks.record import RESULTS, Figure, record
from benchmarks.replicas import Pattern, count_linked_images, write_store
from datasets.cxr import IMAGES_PER_PART, cache_images, image_path, read_image
from datasets.schema import IMAGE_SIZE
from datasets.store import Store
from datasets.synthetic.images import SIGNS, XRay, draw_xray
from datasets.synthetic.simulation import Simulation
from utils.cli import run_cli
from utils.machine import available_cpus
from utils.threads import in_order

T = TypeVar("T")

# Images per second and core of the published resizing, measured once on two cores of a similar machine.
PUBLISHED_IMAGES = 18.0
MIMIC_IMAGES = 377_110
ROWS, COLUMNS = 3056, 2544  # of a MIMIC-CXR-JPG image
QUALITY = 88  # gives 1.5 MB per image on average, as in the release (570 GB for 377,110)
TARGET_OPEN = 0.1  # seconds
PACKAGES = ("numpy", "pillow")


@dataclass(frozen=True)
class ImagesBenchmark:
    """Cache full-size X-rays on all cores, decode the same files alone, and open a store of many images."""

    images: int = 512
    """Full-size JPEGs to cache."""
    image_cache: int = IMAGE_SIZE
    """Shorter side of the cached images in pixels."""
    distinct: int = 16
    """How many of them are drawn; the others are hard links to these."""
    stored: int = 10_000
    """Least number of images in the store that is opened."""
    patients: int = 200
    """Synthetic patients that are written repeatedly for that store."""
    scratch: Path = Path("data/benchmarks")
    """Folder for images and stores, which are removed at the end."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """Return the result of `work`, the seconds that it took, and the CPU seconds of all cores together."""
    cpu_start, start = time.process_time(), time.perf_counter()
    result = work()
    return result, time.perf_counter() - start, time.process_time() - cpu_start


def write_images(root: Path, count: int, distinct: int) -> pl.DataFrame:
    """Write `count` full-size X-rays, all but `distinct` of them as links, and return their ids."""
    rng = np.random.default_rng(0)
    xrays = [
        XRay(10_000_000 + n, 50_000_000 + n, 0, "AP", ROWS, COLUMNS, rng.standard_normal(len(SIGNS)))
        for n in range(distinct)
    ]
    root.mkdir(parents=True)
    drawn = [root / f"{xray.study_id}.jpg" for xray in xrays]
    images = in_order(lambda xray: draw_xray(xray, 0, Simulation()), xrays, available_cpus())
    for pixels, path in zip(images, drawn, strict=True):
        Image.fromarray(pixels).save(path, quality=QUALITY)
    number = np.arange(count)
    ids = {"subject_id": 10_000_000 + number, "study_id": 50_000_000 + number}
    table = pl.DataFrame(ids).with_columns(dicom_id=pl.format("film-{}", "study_id"))
    for index, row in enumerate(table.iter_rows()):
        path = image_path(root, *row)
        path.parent.mkdir(parents=True)
        os.link(drawn[index % distinct], path)
    return table


def decode(path: Path, side: int) -> None:
    """Decode a JPEG at the scale at which the cache decodes it, and nothing else."""
    with Image.open(path, formats=["JPEG"]) as image:
        image.draft("L", (2 * side, 2 * side))
        image.load()


def cached(images: pl.DataFrame, root: Path, folder: Path, side: int) -> np.ndarray:
    """Return the pixels of the complete cache.

    Raises:
        ValueError: An image was rejected.
    """
    parts, outcomes = cache_images(images, root, folder, partial(read_image, side=side))
    if rejected := [outcome for outcome in outcomes if isinstance(outcome, str)]:
        raise ValueError(f"{root}: {rejected[0]}")
    return np.concatenate(list(parts))


def measure_cache(config: ImagesBenchmark, root: Path) -> list[Figure]:
    """Measure caching, and continuing after an interruption."""
    images = write_images(root, config.images, config.distinct)
    paths = [image_path(root, *row) for row in images.iter_rows()]
    side = config.image_cache
    read = partial(decode, side=side)
    _, decoding_seconds, _ = timed(lambda: list(in_order(read, paths, available_cpus(), 32)))
    child.forget_peak()
    cache, seconds, cpu_seconds = timed(lambda: cached(images, root, root / "cache", side))
    peak = child.own_peak()
    removed = remove_later_half(root / "cache")
    resumed, resumed_seconds, _ = timed(lambda: cached(images, root, root / "cache", side))
    if not np.array_equal(cache, resumed):
        raise ValueError("the cache that was interrupted differs from the one that was not")
    size = np.mean([path.stat().st_size for path in paths]) / 1e6
    work = f"cache {len(paths)} images of {COLUMNS}x{ROWS}, {size:.2f} MB, at {side}"
    images_per_core = len(paths) / available_cpus()
    rate = images_per_core / seconds
    decoding_rate = images_per_core / decoding_seconds
    print(f"cores kept busy: {cpu_seconds / seconds:.2f} of {available_cpus()}")
    release = MIMIC_IMAGES / available_cpus() / 3600
    projected = f"projected from this: cache {MIMIC_IMAGES} images at {side}"
    gigabytes = MIMIC_IMAGES * cache.nbytes / len(paths) / 1e9
    return [
        Figure(f"{work}, a core", "images/s", rate, "published", PUBLISHED_IMAGES, peak),
        Figure(f"{work}, a core", "images/s", rate, "decoding alone", decoding_rate, peak),
        Figure(f"{work}, all cores", "core-s/s", cpu_seconds / seconds, "cores", float(available_cpus())),
        Figure(f"{work}, CPU time", "ms/image", 1000 * cpu_seconds / len(paths), "none", None),
        Figure(f"{work}, {removed} interrupted parts again", "s", resumed_seconds, "the whole", seconds),
        Figure(projected, "h", release / rate, "published", release / PUBLISHED_IMAGES),
        Figure(projected, "GB", gigabytes, "none", None),
    ]


def remove_later_half(folder: Path) -> int:
    """Leave a cache as a run that was killed half-way leaves it, and return the number of missing parts."""
    parts = sorted(folder.glob("*.npy"))
    later = parts[len(parts) // 2 :]
    for part in later:
        part.unlink()
        part.with_suffix(".json").unlink()
    return len(later)


def measure_opening(config: ImagesBenchmark, folder: Path) -> Figure:
    """Measure the seconds until the pixels of an image of a large store are read."""
    image_copies = min(10, max(1, config.stored // 20))
    pattern = Pattern.draw(folder / "pattern", config.patients, "synthetic", image_copies)
    copies = -(-config.stored // (count_linked_images(folder / "pattern") * image_copies))
    store, _ = write_store(pattern, folder, copies)
    child.forget_peak()
    runs = [timed(lambda: int(Store.open(store).cxr[-1].max()))[1] for _ in range(9)]
    count = len(Store.open(store).cxr)
    median = float(np.median(runs))
    return Figure(f"open a store of {count} images", "s", median, "target", TARGET_OPEN, child.own_peak())


def main(config: ImagesBenchmark) -> None:
    """Measure both, print the figures and append them."""
    print(f"synthetic X-rays of full size on {available_cpus()} cores, {IMAGES_PER_PART} images a part")
    with child.scratch(config.scratch) as folder:
        figures = measure_cache(config, folder / "images")
        figures.append(measure_opening(config, folder))
    record(config.results, "images", PACKAGES, figures)


if __name__ == "__main__":
    run_cli(main, ImagesBenchmark)
