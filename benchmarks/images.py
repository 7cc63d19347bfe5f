"""The image cache: full-size X-rays next to decoding alone and to the published resizing; opening a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from PIL import Image

from benchmarks import child
from benchmarks.record import RESULTS, Figure, cores, record
from benchmarks.replicas import Pattern, films_in_stays, write_store
from datasets.cxr import IMAGES_PER_PART, cache_images, image_path
from datasets.schema import IMAGE_SIZE
from datasets.store import Store
from datasets.synthetic.images import SIGNS, Film, draw_film
from datasets.synthetic.patients import Strengths
from utils.cli import run_cli
from utils.threads import in_order

T = TypeVar("T")

# Images a second of one core of the published resizing, timed once on two cores of a machine of this kind.
PUBLISHED_IMAGES = 18.0
MIMIC_IMAGES = 377_110
ROWS, COLUMNS = 3056, 2544  # of a MIMIC-CXR-JPG image
QUALITY = 88  # at which a drawn film has 1.5 MB on average, as the release's (570 GB of 377,110)
TARGET_OPEN = 0.1  # seconds
PACKAGES = ("numpy", "pillow")


@dataclass(frozen=True)
class ImagesBenchmark:
    """Cache full-size X-rays on all cores, decode the same files alone, and open a store of many images."""

    images: int = 512
    """Full-size JPEGs to cache."""
    distinct: int = 16
    """How many of them are drawn; the others are links to these."""
    stored: int = 10_000
    """Images, at least, of the store that is opened."""
    patients: int = 200
    """Synthetic patients that are written again and again for that store."""
    scratch: Path = Path("data/benchmarks")
    """Folder for images and stores, emptied at the end."""
    results: Path = RESULTS
    """File that the measured rows are added to."""


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What `work` returns, the seconds that it took, and those of all cores together."""
    spent, began = time.process_time(), time.perf_counter()
    found = work()
    return found, time.perf_counter() - began, time.process_time() - spent


def write_films(root: Path, count: int, distinct: int) -> pl.DataFrame:
    """Write `count` X-rays of full size, some of them links; their ids."""
    rng = np.random.default_rng(0)
    films = [
        Film(10_000_000 + n, 50_000_000 + n, 0, "AP", ROWS, COLUMNS, rng.standard_normal(len(SIGNS)))
        for n in range(distinct)
    ]
    root.mkdir(parents=True)
    drawn = [root / f"{film.study_id}.jpg" for film in films]
    pixels = in_order(lambda film: draw_film(film, 0, Strengths()), films, cores())
    for film, path in zip(pixels, drawn, strict=True):
        Image.fromarray(film).save(path, quality=QUALITY)
    number = np.arange(count)
    ids = {"subject_id": 10_000_000 + number, "study_id": 50_000_000 + number}
    images = pl.DataFrame(ids).with_columns(dicom_id=pl.format("film-{}", "study_id"))
    for place, row in enumerate(images.iter_rows()):
        path = image_path(root, *row)
        path.parent.mkdir(parents=True)
        os.link(drawn[place % distinct], path)
    return images


def decode(path: Path) -> None:
    """A JPEG at the scale that the cache decodes it at, and nothing else."""
    with Image.open(path, formats=["JPEG"]) as image:
        image.draft("L", (IMAGE_SIZE, IMAGE_SIZE))
        image.load()


def cached(images: pl.DataFrame, root: Path, folder: Path) -> np.ndarray:
    """The whole cache [n, 256, 256]; ValueError if an image was rejected."""
    parts, reasons = cache_images(images, root, folder)
    if any(reasons):
        raise ValueError(f"{root}: {next(filter(None, reasons))}")
    return np.concatenate(list(parts))


def measure_cache(config: ImagesBenchmark, root: Path) -> list[Figure]:
    """Figures of caching, all a core, and of going on after an interruption."""
    images = write_films(root, config.images, config.distinct)
    paths = [image_path(root, *row) for row in images.iter_rows()]
    _, plain, _ = timed(lambda: list(in_order(decode, paths, cores(), 32)))
    child.forget_peak()
    whole, seconds, spent = timed(lambda: cached(images, root, root / "cache"))
    held = child.own_peak()
    removed = remove_later_half(root / "cache")
    again, rest, _ = timed(lambda: cached(images, root, root / "cache"))
    if not np.array_equal(whole, again):
        raise ValueError("the cache that was interrupted differs from the one that was not")
    size = np.mean([path.stat().st_size for path in paths]) / 1e6
    work, count = f"cache {len(paths)} images of {COLUMNS}x{ROWS}, {size:.2f} MB", len(paths) / cores()
    print(f"cores kept busy: {spent / seconds:.2f} of {cores()}")
    rate, whole_release = count / seconds, MIMIC_IMAGES / cores() / 3600
    return [
        Figure(f"{work}, a core", "images/s", rate, "published", PUBLISHED_IMAGES, held),
        Figure(f"{work}, a core", "images/s", rate, "decoding alone", count / plain, held),
        Figure(f"{work}, all cores", "core-s/s", spent / seconds, "cores", float(cores())),
        Figure(f"{work}, {removed} interrupted parts again", "s", rest, "the whole", seconds),
        Figure(
            f"projected from this: cache {MIMIC_IMAGES} images",
            "h",
            whole_release / rate,
            "published",
            whole_release / PUBLISHED_IMAGES,
        ),
    ]


def remove_later_half(folder: Path) -> int:
    """Leave a cache as a run leaves it that was killed half-way; how many parts are gone."""
    parts = sorted(folder.glob("*.npy"))
    later = parts[len(parts) // 2 :]
    for part in later:
        part.unlink()
        part.with_suffix(".json").unlink()
    return len(later)


def measure_opening(config: ImagesBenchmark, folder: Path) -> Figure:
    """Seconds until the first pixels of a store of many images are there."""
    pattern_folder, films = folder / "pattern", min(10, max(1, config.stored // 20))
    pattern = Pattern.draw(pattern_folder, config.patients, "synthetic", films)
    copies = -(-config.stored // (films_in_stays(pattern_folder) * films))
    store, _ = write_store(pattern, folder, copies)
    child.forget_peak()
    runs = [timed(lambda: int(Store.open(store).cxr[-1].max()))[1] for _ in range(9)]
    count = len(Store.open(store).cxr)
    median, held = float(np.median(runs)), child.own_peak()
    return Figure(f"open a store of {count} images", "s", median, "target", TARGET_OPEN, held)


def main(config: ImagesBenchmark) -> None:
    """Measure both, print the table and add the rows."""
    print(f"synthetic X-rays of full size on {cores()} cores, {IMAGES_PER_PART} images a part")
    with child.scratch(config.scratch) as folder:
        found = measure_cache(config, folder / "films")
        found.append(measure_opening(config, folder))
    record(config.results, "images", PACKAGES, found)


if __name__ == "__main__":
    run_cli(main, ImagesBenchmark)
