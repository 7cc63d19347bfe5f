"""What a store is made from: a release of MIMIC-IV, or a dataset of the Medical Event Data Standard."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from datasets.events.cleaning import ValueCounts
from datasets.events.streaming import BodySize, stream_observations
from datasets.raw.reading import read_known_items, read_table, scan_file
from datasets.raw.tables import event_table, find_files
from datasets.schema import LabTime
from datasets.splits import SubjectLists

COHORT_TABLES = ("patients", "admissions", "diagnoses_icd", "icustays")
EVENT_TABLES = ("chartevents", "labevents")


class Source(Protocol):
    """What the extraction asks of its input."""

    @property
    def root(self) -> Path:
        """Return the folder."""

    @property
    def lab_time(self) -> LabTime:
        """Return the time that a laboratory value has: of its collection, or of its storing."""

    def files(self) -> dict[str, list[Path]]:
        """Return the files that are read, by table."""

    def check(self) -> None:
        """Check the columns of the files; ValueError for a missing one."""

    def event_files(self) -> dict[str, list[Path]]:
        """Return the files that hold observations, by the table that `observations` takes."""

    def table(self, name: str) -> pl.DataFrame:
        """Return icustays, admissions, patients or diagnoses_icd."""

    def known_items(self) -> dict[str, frozenset[int]]:
        """Return the items that the input describes, by their source, of the sources that it describes."""

    def subject_lists(self) -> SubjectLists:
        """Return the source's own test and validation subjects, None each if it has none."""

    def observations(
        self,
        table: str,
        stays: pl.DataFrame,
        protocol: str,
        counts: ValueCounts,
        on_row: Callable[[int], object],
        sizes: BodySize,
    ) -> Iterator[np.ndarray]:
        """Yield batches of cleaned observations, as `stream_observations` does."""


@dataclass(frozen=True)
class MIMICRelease:
    """A release of MIMIC-IV."""

    root: Path
    lab_time: LabTime

    def files(self) -> dict[str, list[Path]]:
        """Return the files of each table; ValueError for a missing one."""
        return {name: find_files(self.root, name) for name in (*COHORT_TABLES, *EVENT_TABLES)}

    def check(self) -> None:
        """Check the columns of each table; ValueError for a missing one."""
        for name, paths in self.files().items():
            for path in paths:
                scan_file(path, event_table(name, self.lab_time))

    def event_files(self) -> dict[str, list[Path]]:
        """Return the files of chartevents and labevents."""
        return {name: find_files(self.root, name) for name in EVENT_TABLES}

    def table(self, name: str) -> pl.DataFrame:
        """Read a small table."""
        return read_table(self.root, name)

    def known_items(self) -> dict[str, frozenset[int]]:
        """Read d_items and d_labitems, those that the release has."""
        return read_known_items(self.root)

    def subject_lists(self) -> SubjectLists:
        """Return None for both lists: a release has no splits."""
        return None, None

    def observations(
        self,
        table: str,
        stays: pl.DataFrame,
        protocol: str,
        counts: ValueCounts,
        on_row: Callable[[int], object],
        sizes: BodySize,
    ) -> Iterator[np.ndarray]:
        """Stream an event table."""
        return stream_observations(
            self.root, table, stays, protocol, counts, on_row, sizes, lab_time=self.lab_time
        )
