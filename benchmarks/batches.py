"""Batches: stays and pairs a second next to the published loader and to copying; a store beyond memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks import child, reading
from benchmarks.reading import MEGABYTE
from benchmarks.record import RESULTS, Figure, record
from benchmarks.replicas import Pattern, write_store
from datasets.store import Store
from utils.cli import run_cli
from utils.machine import available_cpus

# Of the published loader, timed once on two cores of a machine of this kind: stays a second (200 to 300) and
# hours a second of its EHR reader, which opens a CSV file a sample; images a second of one thread, from
# images already resized.
PUBLISHED_STAYS, PUBLISHED_HOURS, PUBLISHED_IMAGES = 300.0, 15_000.0, 165.0
PACKAGES = ("numpy", "torch")


@dataclass(frozen=True)
class BatchesBenchmark:
    """Read epochs of a synthetic store.

    Records alone, pairs with training views, and from disk under a memory limit.
    """

    patients: int = 2000
    """Patients of the store; as many stays pass the cohort's rules, of which six in ten have X-rays."""
    pattern: int = 200
    """Synthetic patients that are written again and again under other ids."""
    films: int = 3
    """Images of each X-ray study, so that the store outgrows --spare_mb."""
    spare_mb: int = 256
    """MiB that reading from disk may take beyond what Python and PyTorch take, while the store has several
    times as much."""
    epochs: int = 3
    """Epochs that are timed; the fastest counts."""
    scratch: Path = Path("data/benchmarks")
    """Folder for the store, emptied at the end."""
    results: Path = RESULTS
    """File that the measured rows are added to."""


def measure_records(store: Path, epochs: int) -> list[Figure]:
    """EHR batches of 256 of whole stays, in memory."""
    flags = ("--store", store, "--data_device", "cpu", "--data_pairs", "ehr_all", "--epochs", str(epochs))
    found, _ = reading.run(*flags)
    work = f"EHR batches of 256, {found.hours / found.samples:.0f} hours a stay"
    stays, hours = found.samples / found.epoch, found.hours / found.epoch
    return [
        Figure(work, "stays/s", stays, "published", PUBLISHED_STAYS, found.peak_mb),
        Figure(f"hours of {work}", "hours/s", hours, "published", PUBLISHED_HOURS, found.peak_mb),
        Figure(work, "stays/s", stays, "copying the bytes", found.samples / found.copied, found.peak_mb),
    ]


def measure_pairs(store: Path, epochs: int) -> list[Figure]:
    """Pairs with training views of 224 pixels, in memory, all cores together."""
    flags = ("--store", store, "--data_device", "cpu", "--retrieve_cxr", "all", "--epochs", str(epochs))
    found, _ = reading.run(*flags)
    work, rate = "pairs with training views of 224 pixels", found.samples / found.epoch
    return [
        Figure(work, "pairs/s", rate, "published", PUBLISHED_IMAGES * available_cpus(), found.peak_mb),
        Figure(work, "pairs/s", rate, "the views alone", found.images / found.viewed, found.peak_mb),
    ]


def measure_disk(store: Path, spare_mb: int) -> Figure:
    """Pairs from disk while memory is limited; the same limit must be too little for reading into memory."""
    size = sum((store / name).stat().st_size for name in ("hourly.npy", "cxr.npy")) / MEGABYTE
    flags = ("--store", store, "--retrieve_cxr", "all", "--batch_size", "64", "--image_size", "112",
             "--epochs", "1", "--no-compared")  # fmt: skip
    free, _ = reading.run(*flags, "--data_device", "cpu")
    found, ended = reading.run(*flags, "--data_device", "disk", "--spare_mb", str(spare_mb))
    try:
        reading.run(*flags, "--data_device", "cpu", "--spare_mb", str(spare_mb))
    except ValueError as error:
        print(f"--data_device cpu under the same limit: {str(error).splitlines()[-1]}")
    else:
        raise ValueError(
            f"{spare_mb} MiB are no limit for this store of {size:.0f} MiB; take more --patients"
        )
    print(f"--data_device disk: at most {ended.anonymous_mb:.0f} MiB that are no file's, Python's among them")
    work = f"pairs from disk: a store of {size:.0f} MiB, {spare_mb} MiB of memory to spare"
    rate = found.samples / found.epoch
    return Figure(work, "pairs/s", rate, "in memory", free.samples / free.epoch, ended.anonymous_mb)


def main(config: BatchesBenchmark) -> None:
    """Measure all three, print the table and add the rows."""
    print(f"batches of a synthetic store on {available_cpus()} cores")
    with child.scratch(config.scratch) as folder:
        pattern = Pattern.draw(folder / "pattern", config.pattern, "synthetic", config.films)
        store, _ = write_store(pattern, folder, max(1, round(config.patients / config.pattern)))
        print(
            f"store of {len(Store.open(store).stays(['stay_id']))} stays, {len(Store.open(store).cxr)} X-rays"
        )
        found = [
            *measure_records(store, config.epochs),
            *measure_pairs(store, config.epochs),
            measure_disk(store, config.spare_mb),
        ]
    record(config.results, "batches", PACKAGES, found)


if __name__ == "__main__":
    run_cli(main, BatchesBenchmark)
