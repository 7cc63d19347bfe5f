"""Extraction: seconds next to decompressing the same tables, rows a second next to the published code's."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import child
from benchmarks.child import Ended
from benchmarks.fit import at_size
from benchmarks.record import RESULTS, Figure, record, table
from benchmarks.replicas import IV, Mix, Pattern
from utils.cli import run_cli
from utils.machine import available_cpus

# Rows a second of the published extraction (the MIMIC-IV port of mimic3-benchmarks in MedMod), timed once on
# two cores of a machine of this kind; not timed again here.
PUBLISHED_ROWS = 29_000.0
MIMIC_ROWS = 430_000_000  # of chartevents in MIMIC-IV 3.1
PACKAGES = ("numpy", "pandas", "polars", "pyarrow")
STEP = re.compile(r"^\[(\w+)\] ([\d.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class ExtractionBenchmark:
    """Extract raw folders of several sizes, and decompress their tables before and after with zcat."""

    rows: tuple[int, ...] = (5_000_000,)
    """Rows of chartevents, one or more sizes; `--rows 5000000 20000000 50000000` shows growth and takes some
    minutes."""
    mix: Mix = "demo"
    """Rows that a variable reads: 16 % of chartevents as in the MIMIC-IV demo, or all that the synthetic
    charts have (67 %)."""
    patients: int = 250
    """Synthetic patients that are written again and again under other ids."""
    scratch: Path = Path("data/benchmarks")
    """Folder for the raw tables and the store (60 bytes a row), emptied at the end."""
    results: Path = RESULTS
    """File that the measured rows are added to."""


@dataclass(frozen=True)
class Measured:
    """One size: rows of chartevents, the extraction, and zcat of the same tables (mean of two runs)."""

    rows: int
    ours: Ended
    zcat: float
    zcat_core_seconds: float

    @property
    def steps(self) -> dict[str, float]:
        """Seconds of each step, from what the extraction printed."""
        return {name: float(seconds) for name, seconds in STEP.findall(self.ours.output)}


def measure(pattern: Pattern, rows: int, folder: Path) -> Measured:
    """Write about `rows` rows below `folder`, decompress and extract them, and remove them again."""
    copies = max(1, round(rows / pattern.rows))
    began = time.perf_counter()
    tables = pattern.write(folder / "raw", copies)
    size = sum(path.stat().st_size for path in tables) / 1e6
    wrote = time.perf_counter() - began
    print(f"wrote {copies * pattern.rows / 1e6:.3g} M rows, {size:.0f} MB gz, in {wrote:.0f} s", flush=True)
    sums = ["sh", "-c", 'exec zcat "$@" > /dev/null', "zcat", *tables]
    zcats = [child.run(sums)]
    flags = ("--mimic_iv", folder / "raw" / IV, "--out", folder / "store")
    ours = child.run_module("datasets.extract", *flags)
    zcats.append(child.run(sums))
    for name in ("raw", "store"):
        shutil.rmtree(folder / name)
    seconds = sum(z.seconds for z in zcats) / len(zcats)
    return Measured(copies * pattern.rows, ours, seconds, sum(z.core_seconds for z in zcats) / len(zcats))


def figures(found: Sequence[Measured], mix: Mix) -> list[Figure]:
    """Two figures a size, and of several sizes how memory grew and what full MIMIC-IV would take."""
    rows = []
    for size in found:
        work = f"extract {size.rows / 1e6:.3g} M chartevents rows ({mix} mix)"
        rate = size.rows / size.ours.seconds
        rows.append(Figure(work, "s", size.ours.seconds, "zcat", size.zcat, size.ours.peak_mb))
        rows.append(Figure(work, "rows/s", rate, "published", PUBLISHED_ROWS, size.ours.peak_mb))
    if len(found) > 1:
        small, large = found[0], found[-1]
        work = f"memory at {large.rows / 1e6:.3g} M rows ({mix} mix)"
        rows.append(
            Figure(work, "MB", large.ours.peak_mb, f"{small.rows / 1e6:.3g} M rows", small.ours.peak_mb)
        )
        counts = [size.rows for size in found]
        ours = at_size(counts, [size.ours.seconds for size in found], MIMIC_ROWS)
        zcat = at_size(counts, [size.zcat for size in found], MIMIC_ROWS)
        work = f"projected from these: extract {MIMIC_ROWS / 1e6:.0f} M rows ({mix} mix)"
        rows.append(Figure(work, "s", ours, "zcat", zcat))
    return rows


def print_steps(found: Sequence[Measured]) -> None:
    """Print the seconds of each step at each size, and the core-seconds, which vary little with load."""
    names = list(found[0].steps)
    head = ("rows", *names, "start and rest", "core-s", "zcat core-s")
    lines = [head]
    for size in found:
        steps = [f"{size.steps[name]:.1f}" for name in names]
        rest = f"{size.ours.seconds - sum(size.steps.values()):.1f}"
        spent = f"{size.ours.core_seconds:.1f}", f"{size.zcat_core_seconds:.1f}"
        lines.append((f"{size.rows / 1e6:.3g} M", *steps, rest, *spent))
    print("\nseconds of each step")
    print(table(lines))


def main(config: ExtractionBenchmark) -> None:
    """Measure every size, print the tables and add the rows."""
    print(f"extraction of synthetic raw tables on {available_cpus()} cores")
    with child.scratch(config.scratch) as folder:
        pattern = Pattern.draw(folder / "pattern", config.patients, config.mix)
        found = [measure(pattern, rows, folder) for rows in sorted(config.rows)]
    record(config.results, "extraction", PACKAGES, figures(found, config.mix))
    print_steps(found)


if __name__ == "__main__":
    run_cli(main, ExtractionBenchmark)
