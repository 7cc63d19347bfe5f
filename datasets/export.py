"""A store to the published folder layout: `python -m datasets.export --store DIR --out DIR`."""

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from datasets.schema import SAMPLE_COLUMNS, SPLITS, variables
from datasets.store import Store, listfile_name
from utils.cli import run_cli
from utils.files import explain_disk_full, flush
from utils.log import logger

FOLDERS = {"train": "train", "val": "train", "test": "test"}  # published: validation stays are among train
FIRST_48_HOURS = "in-hospital-mortality"  # task whose series end after 48 hours
STAYS_AT_ONCE = 256
ALL_STAYS_COLUMNS = ["subject_id", "hadm_id", "stay_id", "intime", "outtime", "admittime", "dischtime",
                     "deathtime", "dod", "race", "sex", "age", "los_hours", "mortality"]  # fmt: skip


@dataclass(frozen=True)
class ExportConfig:
    """Write a store in the layout of MedFuse, MedMod and their kin: listfiles, and CSV tables a stay."""

    store: Path
    """Folder of the store (made by `python -m datasets.extract`)."""
    out: Path
    """Folder to write; it must not exist yet."""
    layout: Literal["medfuse"] = "medfuse"
    """The published layout to write."""


def export(config: ExportConfig) -> None:
    """Write the layout under another name and rename it when it is complete.

    Raises:
        ValueError: The folder exists, or the store is damaged or has no samples.
    """
    if config.out.exists():
        raise ValueError(
            f"{config.out} exists, and an export is not continued; remove it or give another --out"
        )
    store = Store.open(config.store)
    if not store.tasks:
        command = f"python -m tasks.samples --store {store.folder}"
        raise ValueError(f"{store.folder} has no samples; make them with {command}")
    partial = config.out.with_name(config.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    stays = store.stays()
    try:
        with explain_disk_full(partial, "nothing is left of this one"):
            _write_layout(store, stays, partial)
            os.sync()  # once, as it is a file a stay
            partial.rename(config.out)
            flush(config.out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    logger.info(f"export: {config.out} ({len(stays)} stays)")


def _write_layout(store: Store, stays: pd.DataFrame, folder: Path) -> None:
    (folder / "root").mkdir(parents=True)
    stays[ALL_STAYS_COLUMNS].to_csv(folder / "root" / "all_stays.csv", index=False)
    stays_of_tasks = _write_listfiles(store, folder)
    for stay_row, series in _series(store, stays):
        tasks = [task for task, rows in stays_of_tasks.items() if stay_row in rows]
        _write_stay(stays.iloc[stay_row], series, folder, tasks)


def _write_listfiles(store: Store, folder: Path) -> dict[str, set[int]]:
    """Write the listfiles; return for each task the rows of the stays that it uses."""
    used: dict[str, set[int]] = {}
    for task in store.tasks:
        (folder / task).mkdir()
        for split in SPLITS:
            rows = store.listfile(task, split)
            used.setdefault(task, set()).update(rows["stay_row"].tolist())
            published = rows.drop(columns=list(SAMPLE_COLUMNS))
            published.to_csv(folder / task / listfile_name(split), index=False, float_format="%.6f")
    return used


def _series(store: Store, stays: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the row and the series of each stay with events, with a progress bar."""
    counts = stays["events"].to_numpy()
    with tqdm(total=len(stays), desc="stays", unit="stay", disable=None) as bar:
        for start in range(0, len(stays), STAYS_AT_ONCE):
            stop = min(start + STAYS_AT_ONCE, len(stays))
            for stay_row, events in store.events(counts, slice(start, stop)).groupby("stay_row"):
                yield stay_row, _table(events)
            bar.update(stop - start)


def _table(events: pd.DataFrame) -> pd.DataFrame:
    """Turn a stay's observations into Hours and a column per variable, as text; "" where none was charted."""
    names = [variable.name for variable in variables()]
    hours, row = np.unique(events["hours"].to_numpy(), return_inverse=True)
    cells = np.full((len(hours), len(names)), "", object)
    columns = [names.index(name) for name in events["variable"].cat.categories]
    for index, code, value in zip(row, events["variable"].cat.codes, events["value"], strict=True):
        column = columns[code]
        categories = variables()[column].categories
        cells[index, column] = categories[int(value)] if categories else format(value, ".15g")
    table = pd.DataFrame(cells, columns=names)
    table.insert(0, "Hours", [repr(float(hour)) for hour in hours])
    return table


def _write_stay(stay: pd.Series, table: pd.DataFrame, folder: Path, tasks: Sequence[str]) -> None:
    """Write the subject's episode files, and the series in the folder of each task that uses the stay."""
    subject = folder / "root" / FOLDERS[stay["split"]] / str(stay["subject_id"])
    subject.mkdir(parents=True, exist_ok=True)
    series = subject / f"episode{stay['episode']}_timeseries.csv"
    table.to_csv(series, index=False)
    _write_episode(subject / f"episode{stay['episode']}.csv", stay, table)
    for task in tasks:
        path = folder / task / FOLDERS[stay["split"]] / f"{stay['subject_id']}_{series.name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if task == FIRST_48_HOURS:
            table[table["Hours"].astype(float) <= 48 + 1e-6].to_csv(path, index=False)
        else:
            os.link(series, path)


def _write_episode(path: Path, stay: pd.Series, table: pd.DataFrame) -> None:
    first = {name: next((value for value in table[name] if value), "") for name in ("Height", "Weight")}
    row = {
        "Icustay": stay["stay_id"], "Ethnicity": stay["race"], "Gender": stay["sex"], "Age": stay["age"],
        **first, "Length of Stay": stay["los_hours"] / 24, "Mortality": stay["mortality"],
    }  # fmt: skip
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([row.keys(), row.values()])


if __name__ == "__main__":
    run_cli(export, ExportConfig)
