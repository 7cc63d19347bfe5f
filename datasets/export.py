"""A store to the published folder layout: `python -m datasets.export --layout medfuse --store DIR --out
DIR`.
"""

import csv
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from datasets.schema import SAMPLE_COLUMNS, SPLITS, variables
from datasets.store import Store
from utils.cli import run_cli
from utils.files import explain_disk_full, flush

FOLDERS = {
    "train": "train",
    "val": "train",
    "test": "test",
}  # published: validation stays lie among the train ones
FIRST_48_HOURS = "in-hospital-mortality"


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
    """Write the layout beside its place and rename it when it is whole.

    Raises:
        ValueError: the folder exists, or the store is not sound.
    """
    if config.out.exists():
        raise ValueError(
            f"{config.out} exists; an export is written whole: remove the folder, or give another --out"
        )
    store = Store.open(config.store)
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
    print(f"export: {config.out} ({len(stays)} stays)")


def _write_layout(store: Store, stays: pd.DataFrame, folder: Path) -> None:
    _write_stays(stays, folder / "root")
    windows = _listfiles(store, folder)
    for stay_row, table in tqdm(
        _series(store, stays), total=len(stays), desc="stays", unit="stay", disable=None
    ):
        _write_stay(stays.iloc[stay_row], table, folder, windows)


def _write_stays(stays: pd.DataFrame, folder: Path) -> None:
    columns = ["subject_id", "hadm_id", "stay_id", "intime", "outtime", "admittime", "dischtime", "deathtime",
               "dod", "race", "sex", "age", "los_hours", "mortality"]  # fmt: skip
    folder.mkdir(parents=True)
    stays[columns].to_csv(folder / "all_stays.csv", index=False)


def _listfiles(store: Store, folder: Path) -> dict[str, set[int]]:
    """Write the listfiles; return for each task the stays that it uses."""
    used: dict[str, set[int]] = {}
    for task in sorted(path.parent.name for path in store.folder.glob("*/train_listfile.csv")):
        for split in SPLITS:
            rows = store.listfile(task, split)
            used.setdefault(task, set()).update(rows["stay_row"].tolist())
            published = rows.drop(columns=list(SAMPLE_COLUMNS))
            (folder / task).mkdir(exist_ok=True)
            published.to_csv(folder / task / f"{split}_listfile.csv", index=False, float_format="%.6f")
    return used


def _series(store: Store, stays: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Each stay's observations as the published table: Hours and a column a variable, text as charted."""
    rows = {stay_id: row for row, stay_id in enumerate(stays["stay_id"])}
    file = pq.ParquetFile(store.folder / "events.parquet")
    for group in range(file.num_row_groups):
        events = file.read_row_group(group).to_pandas()
        for stay_id, own in events.groupby("stay_id", sort=False):
            yield rows[stay_id], _table(own)


def _table(events: pd.DataFrame) -> pd.DataFrame:
    """Long observations of one stay -> Hours and the 17 columns, as text; empty where nothing was charted."""
    names = [variable.name for variable in variables()]
    hours, row = np.unique(events["hours"].to_numpy(), return_inverse=True)
    cells = np.full((len(hours), len(names)), "", object)
    place = events["variable"].cat.codes.to_numpy()
    order = events["variable"].cat.categories
    for at, code, value in zip(row, place, events["value"], strict=True):
        column = names.index(order[code])
        categories = variables()[column].categories
        cells[at, column] = categories[int(value)] if categories else format(value, ".15g")
    table = pd.DataFrame(cells, columns=names)
    table.insert(0, "Hours", [repr(float(hour)) for hour in hours])
    return table


def _write_stay(stay: pd.Series, table: pd.DataFrame, folder: Path, windows: dict[str, set[int]]) -> None:
    """The subject's episode files, and the series in the folder of each task that uses the stay."""
    subject = folder / "root" / FOLDERS[stay["split"]] / str(stay["subject_id"])
    subject.mkdir(parents=True, exist_ok=True)
    series = subject / f"episode{stay['episode']}_timeseries.csv"
    table.to_csv(series, index=False)
    _write_episode(subject / f"episode{stay['episode']}.csv", stay, table)
    for task, used in windows.items():
        if stay.name not in used:
            continue
        own = folder / task / FOLDERS[stay["split"]] / f"{stay['subject_id']}_{series.name}"
        own.parent.mkdir(parents=True, exist_ok=True)
        if task == FIRST_48_HOURS:
            table[table["Hours"].astype(float) <= 48 + 1e-6].to_csv(own, index=False)
        else:
            os.link(series, own)


def _write_episode(path: Path, stay: pd.Series, table: pd.DataFrame) -> None:
    first = {name: next((value for value in table[name] if value), "") for name in ("Height", "Weight")}
    row = {
        "Icustay": stay["stay_id"], "Ethnicity": stay["race"], "Gender": stay["sex"], "Age": stay["age"],
        **first, "Length of Stay": stay["los_hours"] / 24, "Mortality": stay["mortality"],
    }  # fmt: skip
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    run_cli(export, ExportConfig)
