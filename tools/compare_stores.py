"""Whether two stores hold the same stays, hours, samples and labels: `python -m tools.compare_stores A B`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro

from benchmarks.record import table
from datasets.schema import SPLITS, variables
from datasets.store import Store
from utils.cli import run_cli

STAYS_AT_ONCE = 256
PLACE_COLUMNS = ["offset"]  # of stays.parquet: where a stay's hours lie in the file, and no content
HOURS_DIGITS = 5  # of the end of a sample, by which it is matched
TOLERANCE = 1e-6  # of the columns of stays: a length of stay is text of ten decimals in the release


@dataclass(frozen=True)
class CompareConfig:
    """Compare two stores stay by stay, and count what differs; exit with status 1 if anything does.

    Stays are matched by their stay_id, samples by stay and time, and every cell of the grid is compared.
    """

    first: tyro.conf.Positional[Path]
    """Folder of a store."""
    second: tyro.conf.Positional[Path]
    """Folder of the other one."""
    may_differ: tuple[str, ...] = ()
    """Columns of stays.parquet, such as age, whose differences are counted but are no failure."""


class Count(NamedTuple):
    """How many things there are in both stores, in one of them only, and how many of those in both differ."""

    what: str
    both: int
    only_first: int = 0
    only_second: int = 0
    differ: int = 0
    may_differ: bool = False

    @property
    def is_failure(self) -> bool:
        """Return whether the stores disagree where they may not."""
        return not self.may_differ and bool(self.only_first or self.only_second or self.differ)


def compare(first: Store, second: Store, may_differ: Sequence[str] = ()) -> Iterator[Count]:
    """Yield counts: totals, and the columns and variables that differ.

    Raises:
        ValueError: The grids of the stores have not the same hours in a bin.
    """
    if first.manifest.timestep != second.manifest.timestep:
        raise ValueError(
            f"{first.folder} has bins of {first.manifest.timestep} hours, {second.folder} of "
            f"{second.manifest.timestep}; give two stores with the same --timestep"
        )
    stays, others = (store.stays().set_index("stay_id") for store in (first, second))
    yield _matched("stays", stays.index, others.index)
    yield from _columns_of_stays(stays, others, may_differ)
    yield from _cells(first, second, stays, others)
    yield _matched("diagnoses", _diagnoses(first), _diagnoses(second))
    yield _matched("X-rays", _images(first), _images(second))
    for task in sorted({*first.tasks, *second.tasks}):
        yield from _samples(first, second, task)


def _matched(what: str, first: pd.Index, second: pd.Index) -> Count:
    return Count(
        what, len(first.intersection(second)), len(first.difference(second)), len(second.difference(first))
    )


def _columns_of_stays(
    first: pd.DataFrame, second: pd.DataFrame, may_differ: Sequence[str]
) -> Iterator[Count]:
    """Yield the values of stays in both, and each column in which some differ."""
    shared = first.index.intersection(second.index)
    columns = first.columns.intersection(second.columns).difference(PLACE_COLUMNS)
    found = []
    for name in columns:
        differ = int(_differ(first.loc[shared, name], second.loc[shared, name]).sum())
        found.append(Count(f"  {name}", len(shared), differ=differ, may_differ=name in may_differ))
    only_first, only_second = (
        len(shared) * len(table.columns.difference(columns).difference(PLACE_COLUMNS))
        for table in (first, second)
    )
    differ = sum(count.differ for count in found if count.is_failure)
    yield Count("columns of stays", len(shared) * len(columns), only_first, only_second, differ)
    yield from (count for count in found if count.differ)


def _differ(first: pd.Series, second: pd.Series) -> np.ndarray:
    """Return where values of rows [n] differ; two missing ones are equal."""
    if pd.api.types.is_float_dtype(first) and pd.api.types.is_float_dtype(second):
        is_equal = np.isclose(first, second, rtol=0, atol=TOLERANCE, equal_nan=True)
    else:
        is_equal = (first == second) | (first.isna() & second.isna())
    differs: np.ndarray = ~np.asarray(is_equal, bool)
    return differs


def _cells(a: Store, b: Store, first: pd.DataFrame, second: pd.DataFrame) -> Iterator[Count]:
    """Yield the cells of the grids of stays in both, and each variable in which some differ."""
    shared = first.index.intersection(second.index)
    names = np.array([variable.name for variable in variables()])
    of_channel = np.zeros(a.hourly.shape[1], int)
    for number, variable in enumerate(variables()):
        values = slice(variable.first_channel, variable.first_channel + variable.width)
        of_channel[values] = of_channel[variable.mask_channel] = number
    differ, hours, only_first, only_second = np.zeros(len(of_channel), int), 0, 0, 0
    for start in range(0, len(shared), STAYS_AT_ONCE):
        block, other = (table.loc[shared[start : start + STAYS_AT_ONCE]] for table in (first, second))
        common = np.minimum(block["length"].to_numpy(), other["length"].to_numpy())
        grid = a.hourly[_rows(block["offset"].to_numpy(), common)]
        differ += (grid != b.hourly[_rows(other["offset"].to_numpy(), common)]).sum(axis=0)
        hours += int(common.sum())
        only_first += int((block["length"].to_numpy() - common).sum())
        only_second += int((other["length"].to_numpy() - common).sum())
    size = len(of_channel)
    total = int(differ.sum())
    yield Count("cells of the grid", hours * size, only_first * size, only_second * size, total)
    by_variable = np.bincount(of_channel, differ, minlength=len(names)).astype(int)
    width = np.bincount(of_channel, minlength=len(names))
    for number in np.flatnonzero(by_variable).tolist():
        yield Count(f"  {names[number]}", hours * int(width[number]), differ=int(by_variable[number]))


def _rows(offset: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return the rows of stays in hourly.npy, one stay after the other."""
    starts = np.cumsum(length) - length
    rows: np.ndarray = np.repeat(offset - starts, length) + np.arange(int(length.sum()))
    return rows


def _diagnoses(store: Store) -> pd.MultiIndex:
    """Return the different diagnoses of each stay; their order (seq_num) is no content."""
    rows = store.diagnoses()[["stay_id", "icd_code", "icd_version", "condition"]]
    return pd.MultiIndex.from_frame(rows.fillna({"condition": ""}).drop_duplicates())


def _images(store: Store) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(store.images(["stay_id", "dicom_id", "hours"]))


def _samples(first: Store, second: Store, task: str) -> Iterator[Count]:
    """Yield the samples and the labels of a task; a store without the task has none."""
    samples, others = (_samples_of(store, task) for store in (first, second))
    yield _matched(f"{task}: samples", samples.index, others.index)
    shared = samples.index.intersection(others.index)
    labels = samples.columns.intersection(others.columns)
    differ = sum(int(_differ(samples.loc[shared, name], others.loc[shared, name]).sum()) for name in labels)
    yield Count(f"{task}: labels", len(labels) * len(shared), differ=differ)


def _samples_of(store: Store, task: str) -> pd.DataFrame:
    """Return the labels of a task by split, stay, end of the sample, and number among those that end then."""
    keys = ["split", "stay_id", "end_hours"]
    if task not in store.tasks:
        return pd.DataFrame(columns=[*keys, "number"]).set_index([*keys, "number"])
    rows = pd.concat([store.listfile(task, split).assign(split=split) for split in SPLITS])
    rows["end_hours"] = rows["end_hours"].round(HOURS_DIGITS)
    rows["number"] = rows.groupby(keys).cumcount()
    return rows.set_index([*keys, "number"])[store.tasks[task].labels]


def main(config: CompareConfig) -> None:
    """Print the counts, and exit with status 1 if the stores differ where they may not."""
    counts = list(compare(Store.open(config.first), Store.open(config.second), config.may_differ))
    head = ("", "in both", "only in the first", "only in the second", "differ")
    rows = [
        (count.what, *(f"{number:,}" for number in count[1:5]), "may differ" * count.may_differ)
        for count in counts
    ]
    print(table([(*head, ""), *rows]))
    sys.exit(1 if any(count.is_failure for count in counts) else 0)


if __name__ == "__main__":
    run_cli(main, CompareConfig)
