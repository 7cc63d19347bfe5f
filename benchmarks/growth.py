"""Growth: seconds and memory against the number of patients, from raw tables to probing an epoch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import child, probing, reading
from benchmarks.extraction import MIMIC_ROWS
from benchmarks.fit import at_size, exponent
from benchmarks.record import RESULTS, Figure, record
from benchmarks.replicas import STAYS, Mix, Pattern, write_store
from utils.cli import run_cli
from utils.machine import available_cpus

MIMIC_STAYS = 94_458  # in icustays of MIMIC-IV 3.1
LARGEST_EXPONENT = 1.05
PACKAGES = ("numpy", "polars", "torch")
ASSUMED = f"""
The projections draw the straight line through the measured sizes on to MIMIC-IV 3.1, which is taken to have
{MIMIC_ROWS} rows of chartevents, of which the same share is read, and {MIMIC_STAYS} ICU stays as long as
the synthetic ones.
"""


@dataclass(frozen=True)
class GrowthBenchmark:
    """Extract, open, read and probe synthetic releases of several sizes, and fit how each cost grows."""

    patients: tuple[int, ...] = (250, 1000, 2500)
    """Numbers of patients; `--patients 1000 10000 50000` takes some ten minutes and 6 GB."""
    mix: Mix = "demo"
    """Rows that a variable reads: 16 % of chartevents as in the MIMIC-IV demo, or all that the synthetic
    charts have (67 %)."""
    pattern: int = 250
    """Synthetic patients that are written again and again under other ids."""
    scratch: Path = Path("data/benchmarks")
    """Folder for raw tables and stores, emptied at the end."""
    results: Path = RESULTS
    """File that the measured rows are added to."""


class Cost(NamedTuple):
    """Seconds and MiB of one step at one size."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Size:
    """What one number of patients costs, by step; rows: of chartevents; stays: of icustays."""

    patients: int
    rows: int
    stays: int
    costs: dict[str, Cost]


def measure(pattern: Pattern, copies: int, patients: int, folder: Path) -> Size:
    """Extract `copies` of the pattern, read and probe the store, and remove it again."""
    store, extraction = write_store(pattern, folder, copies)
    flags = ("--store", store, "--data_pairs", "ehr_all")
    read, reader = reading.run(*flags, "--data_device", "disk", "--epochs", "2", "--no-compared")
    probed, prober = probing.run(*flags)
    shutil.rmtree(store)
    costs = {
        "extraction": Cost(extraction.seconds, extraction.peak_mb),
        "opening a store and its samples": Cost(read.opened + read.loaded, reader.anonymous_mb),
        "sampling an epoch (order, rows and batches, from disk)": Cost(read.epoch, reader.anonymous_mb),
        "epoch evaluation (probe of 100 passes, on features)": Cost(probed, prober.anonymous_mb),
    }
    print(
        f"{patients} patients: " + ", ".join(f"{cost.seconds:.3g} s" for cost in costs.values()), flush=True
    )
    return Size(patients, copies * pattern.rows, copies * len(pattern.tables[STAYS]), costs)


def figures(sizes: Sequence[Size], mix: Mix) -> list[Figure]:
    """Seconds at each size beside growth in proportion from the smallest; exponents, memory, and MIMIC-IV."""
    found = []
    small, large = sizes[0], sizes[-1]
    for step, first in small.costs.items():
        for size in sizes:
            cost, proportional = size.costs[step], first.seconds * size.patients / small.patients
            work = f"{step}: {size.patients} patients ({mix} mix)"
            against = f"in proportion to {small.patients}"
            found.append(Figure(work, "s", cost.seconds, against, proportional, cost.megabytes))
        if len(sizes) > 1:
            found += _growth(step, sizes, f"{small.patients} to {large.patients} patients ({mix} mix)")
    return found


def _growth(step: str, sizes: Sequence[Size], span: str) -> list[Figure]:
    seconds = [size.costs[step].seconds for size in sizes]
    memory = [size.costs[step].megabytes for size in sizes]
    by_rows = step == "extraction"
    scale = [size.rows if by_rows else size.stays for size in sizes]
    mimic = at_size(scale, seconds, MIMIC_ROWS if by_rows else MIMIC_STAYS)
    power = exponent([size.patients for size in sizes], seconds)
    return [
        Figure(f"{step}: exponent, {span}", "exponent", power, "target", LARGEST_EXPONENT),
        Figure(f"{step}: memory, {span}", "MB", memory[-1], "the smallest", memory[0]),
        Figure(f"{step}: projected from {span} to MIMIC-IV 3.1", "s", mimic, "the largest", seconds[-1]),
    ]


def main(config: GrowthBenchmark) -> None:
    """Measure every size, print the table and add the rows."""
    print(f"growth of synthetic releases on {available_cpus()} cores")
    with child.scratch(config.scratch) as folder:
        pattern = Pattern.draw(folder / "pattern", config.pattern, config.mix)
        copies = sorted({max(1, round(patients / config.pattern)) for patients in config.patients})
        sizes = [measure(pattern, count, count * config.pattern, folder) for count in copies]
    record(config.results, "growth", PACKAGES, figures(sizes, config.mix))
    print(ASSUMED)


if __name__ == "__main__":
    run_cli(main, GrowthBenchmark)
