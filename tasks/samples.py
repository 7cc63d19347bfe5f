"""Samples of the tasks, made from a finished store: `python -m tasks.samples --store DIR [--task NAME]`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from tqdm import tqdm

from datasets.events.cleaning import EVENT_DTYPE
from datasets.hourly import bins_of, ends_mid_bin, partial_bin_rows
from datasets.schema import FINDINGS, channel_count, variables
from datasets.store import MANIFEST, Store, TaskManifest
from datasets.store_writer import work_folder, write_samples
from tasks import TASKS, TaskName, get_task
from tasks.counts import (
    ATTRITION,
    LABELS,
    count_attrition,
    count_labels,
    describe_attrition,
    describe_positives,
    read_counts,
    small_splits,
    with_removed,
)
from tasks.task import Task
from utils.cli import run_cli
from utils.lazy_pandas import pd
from utils.log import logger
from utils.threads import THREADS, in_order

STAYS_PER_BLOCK = 4096  # stays whose samples are made at once
STAYS_PER_READ = 256  # stays whose observations are read at once
MILLISECONDS = 3.6e6  # of an hour


@dataclass(frozen=True)
class SamplesConfig:
    """Write the samples of every task, or of one, into a finished store. No raw tables are needed."""

    store: Path
    """Folder of a store (made by `python -m datasets.extract`). Run the same command again to go on after an
    interruption."""
    task: TaskName = ""
    """Task to write samples of; empty: all tasks."""


class Block(NamedTuple):
    """Samples of a task, of some consecutive stays, the partial bins [n, C] that they name, and counts."""

    samples: pd.DataFrame
    partial_bins: np.ndarray
    attrition: pd.DataFrame
    labels: pd.DataFrame


@dataclass(frozen=True)
class SampleMaker:
    """Makes samples of some stays of a store at a time, for several tasks."""

    store: Store
    tasks: Sequence[Task]
    stays: pd.DataFrame
    images: pd.DataFrame

    @classmethod
    def of(cls, store: Store, tasks: Sequence[Task]) -> Self:
        """Read stays and images of a store; uncertain findings become what the extraction was asked for."""
        images = store.images()
        meaning = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[store.manifest.uncertain]
        findings = images[list(FINDINGS)].fillna(0.0).replace(-1.0, meaning)
        return cls(store, tasks, store.stays(), images.assign(**findings))

    def blocks(self) -> Iterator[slice]:
        """Yield the rows of some stays at a time, with a progress bar."""
        starts = range(0, len(self.stays), STAYS_PER_BLOCK)
        for start in tqdm(starts, desc="samples", unit="block", disable=None):
            yield slice(start, min(start + STAYS_PER_BLOCK, len(self.stays)))

    def make(self, rows: slice) -> list[Block]:
        """Return the samples of each task of some stays."""
        stays = self.stays.iloc[rows].reset_index(drop=True)
        bounds = np.searchsorted(self.images["stay_row"].to_numpy(), [rows.start, rows.stop])
        images = self.images.iloc[slice(*bounds)].reset_index(drop=True)
        images = images.assign(stay_row=images["stay_row"].astype(np.int64) - rows.start)
        manifest = self.store.manifest
        made = [task.samples(stays, images, manifest.protocol) for task in self.tasks]
        placed = [place_samples(samples, stays, images, manifest.timestep) for samples in made]
        partial_bins = self._partial_bins(rows, [windows for _, windows in placed])
        blocks = []
        for task, (samples, _), bins in zip(self.tasks, placed, partial_bins, strict=True):
            attrition = count_attrition(task, stays, images, manifest.protocol, samples)
            labels = count_labels(task, samples, stays)
            cxr_row = samples["cxr_row"].to_numpy()
            samples = samples.assign(
                stay_row=samples["stay_row"] + rows.start,
                cxr_row=np.where(cxr_row >= 0, cxr_row + bounds[0], -1),
            )
            blocks.append(Block(samples, bins, attrition, labels))
        return blocks

    def _partial_bins(self, rows: slice, windows: Sequence[pd.DataFrame]) -> list[np.ndarray]:
        """Return the last rows [n, C] of the windows of each task, as `place_samples` returns them.

        The observations of few stays are in memory at once.
        """
        found = [[np.empty((0, channel_count()), np.float32)] for _ in windows]
        rows_of = [table["stay_row"].to_numpy() for table in windows]
        for start in range(rows.start, rows.stop, STAYS_PER_READ):
            part = slice(start, min(start + STAYS_PER_READ, rows.stop))
            ends = part.start - rows.start, part.stop - rows.start
            bounds = [np.searchsorted(stay_row, ends) for stay_row in rows_of]
            if all(first == stop for first, stop in bounds):
                continue
            events = self._events(part, rows.start)
            for bins, table, (first, stop) in zip(found, windows, bounds, strict=True):
                here = table.iloc[first:stop]
                stay_row, end_hours = here["stay_row"].to_numpy(), here["end_hours"].to_numpy()
                bins.append(partial_bin_rows(events, stay_row, end_hours, self.store.manifest.timestep))
        return [np.concatenate(bins) for bins in found]

    def _events(self, rows: slice, first: int) -> np.ndarray:
        """Return the observations of some stays; that of row `first` has number 0."""
        table = self.store.events(self.stays["events"].to_numpy(), rows)
        names = [variable.name for variable in variables()]
        numbers = np.array([names.index(name) for name in table["variable"].cat.categories])
        events = np.zeros(len(table), EVENT_DTYPE)
        events["stay_row"] = table["stay_row"] - first
        events["second"] = np.round(table["hours"] * 3600)
        events["variable"] = numbers[table["variable"].cat.codes]
        events["value"] = table["value"]
        return events


def last_image(samples: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Return the row of each sample's last image by end_hours, or -1; `images` is ordered by stay, hours."""
    if images.empty:
        return np.full(len(samples), -1, np.int64)
    image_times = _moment(images["stay_row"], images["hours"])
    sample_times = _moment(samples["stay_row"], samples["end_hours"])
    last = np.searchsorted(image_times, sample_times, side="right") - 1
    same_stay = images["stay_row"].to_numpy()[np.maximum(last, 0)] == samples["stay_row"].to_numpy()
    return np.where((last >= 0) & same_stay, last, -1)


def _moment(stay_row: pd.Series, hours: pd.Series) -> np.ndarray:
    """Return milliseconds on a common clock that keeps stays apart."""
    milliseconds = np.round(hours.to_numpy(np.float64) * MILLISECONDS).astype(np.int64)
    moment: np.ndarray = stay_row.to_numpy(np.int64) << 40 | milliseconds
    return moment


def place_samples(
    samples: pd.DataFrame, stays: pd.DataFrame, images: pd.DataFrame, timestep: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the hourly bins, the partial bins and the images of samples; drop samples without a bin.

    Returns the samples with `bins`, `cxr_row` (kept if the task names it) and `partial_bin_row`, a row of the
    second table (-1: none): stay_row and end_hours of the windows that end inside a bin, before the end of
    the stay, each once, ordered by stay and time.
    """
    end = samples.get("read_hours", samples["end_hours"]).to_numpy()
    bins = bins_of(end, timestep)
    if not (has_bin := bins > 0).all():
        samples, end, bins = samples[has_bin].reset_index(drop=True), end[has_bin], bins[has_bin]
    stay_row = samples["stay_row"].to_numpy()
    cxr_row = samples["cxr_row"] if "cxr_row" in samples else last_image(samples, images)
    before_the_end = end < stays["los_hours"].to_numpy()[stay_row] - 1e-6
    partial = before_the_end & ends_mid_bin(end, timestep)
    windows, row = np.unique(np.stack([stay_row[partial], end[partial]], axis=1), axis=0, return_inverse=True)
    partial_bin_row = np.full(len(samples), -1, np.int64)
    partial_bin_row[partial] = row.ravel()
    table = pd.DataFrame({"stay_row": windows[:, 0].astype(np.int64), "end_hours": windows[:, 1]})
    return samples.assign(bins=bins, cxr_row=cxr_row, partial_bin_row=partial_bin_row), table


def make_samples(folder: Path, tasks: Iterable[Task]) -> dict[str, TaskManifest]:
    """Write the samples of those tasks that a store has none of yet; return the manifests of all `tasks`.

    Tasks for which the store's source lacks something are left out, with a warning.

    Raises:
        ValueError: The store is unfinished, in use, or has samples of a task with other labels, or no task is
            left.
    """
    store, tasks = Store.open_without_samples(folder), list(tasks)
    refused = store.manifest.meds.refused
    reasons = [f"no samples of {task.name}: {refused[task.name]}" for task in tasks if task.name in refused]
    tasks = [task for task in tasks if task.name not in refused]
    if reasons and not tasks:
        raise ValueError(f"{folder}: {reasons[0]}")
    for reason in reasons:
        logger.warning(reason)
    with work_folder(folder):
        missing = [task for task in tasks if not _is_complete(store, task)]
        if missing:
            _write(store, missing)
        else:
            logger.info(f"{folder}: the samples of {', '.join(task.name for task in tasks)} are complete")
        return {task.name: store.read_task(task.name) for task in tasks}


def _is_complete(store: Store, task: Task) -> bool:
    if not (store.folder / task.name / MANIFEST).is_file():
        return False
    labels = store.read_task(task.name).labels
    if labels != list(task.labels):
        raise ValueError(
            f"{store.folder / task.name} holds samples with the labels {', '.join(labels)}, and the task now "
            f"has {', '.join(task.labels)}; remove the folder and run the same command again"
        )
    return True


def _write(store: Store, tasks: Sequence[Task]) -> None:
    maker = SampleMaker.of(store, tasks)
    with ExitStack() as files:
        writers = [
            files.enter_context(write_samples(store.folder, task.name, task.labels, maker.stays))
            for task in tasks
        ]
        counts: list[tuple[pd.DataFrame, pd.DataFrame]] = []
        for blocks in in_order(maker.make, maker.blocks(), THREADS, each=1):
            new = [(block.attrition, block.labels) for block in blocks]
            counts = [(a + c, b + d) for (a, b), (c, d) in zip(counts, new, strict=True)] if counts else new
            for writer, block in zip(writers, blocks, strict=True):
                writer.write(block.samples, block.partial_bins)
        for writer, (attrition, labels) in zip(writers, counts, strict=True):
            writer.tables = {ATTRITION: with_removed(attrition).reset_index(), LABELS: labels.reset_index()}


def _print_counts(store: Path, tasks: Sequence[str]) -> None:
    """Print positives, why stays have no sample, and which splits are too small."""
    read = {task: read_counts(store / task) for task in tasks}
    counts = {task: tables for task, tables in read.items() if tables is not None}
    print(f"Positive samples (of these with an X-ray); of several labels the fewest to the most; {LABELS}:")
    for task, (_, labels) in counts.items():
        print(f"  {task:<24} {describe_positives(labels)}")
    print(f"Stays with a sample, and what the others lack; <task>/{ATTRITION}:")
    for task, (attrition, _) in counts.items():
        print(f"  {task:<24} {describe_attrition(attrition)}")
    for task, (_, labels) in counts.items():
        for warning in small_splits(labels):
            logger.warning(f"{task}: {warning}")


def main(config: SamplesConfig) -> None:
    """Write samples and print how many there are."""
    started = time.monotonic()
    tasks = [get_task(config.task)] if config.task else TASKS.values()
    manifests = make_samples(config.store, tasks)
    print("Samples (of these with an X-ray):")
    for name, manifest in manifests.items():
        counts = (f"{split} {n.samples} ({n.with_xray})" for split, n in manifest.samples.items())
        print(f"  {name:<24} {'  '.join(counts)}")
    _print_counts(config.store, list(manifests))
    logger.info(f"[samples] {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    run_cli(main, SamplesConfig)
