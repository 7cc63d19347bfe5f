"""A store in a published benchmark's folder layout: `python -m datasets.export --store DIR --out DIR`."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from datasets.schema import RESOURCES, SAMPLE_COLUMNS, SPLITS, read_resource, variables
from datasets.store import Store, listfile_name
from utils.cli import run_cli, run_next
from utils.files import explain_disk_full, flush
from utils.lock import locked
from utils.log import logger

Layout = Literal["medfuse", "mimic3"]
FOLDERS = {"train": "train", "val": "train", "test": "test"}  # published: validation stays are among train
FIRST_48_HOURS = "in-hospital-mortality"  # task whose series end after 48 hours
STAYS_AT_ONCE = 256
TIMES = ("intime", "outtime", "admittime", "dischtime", "deathtime")
# `race` is `ethnicity` in MIMIC-IV 1.0, for which the published code was written: readers ask for either.
STAY_COLUMNS = ["subject_id", "hadm_id", "stay_id", "last_careunit", "intime", "outtime", "los", "admittime",
                "dischtime", "deathtime", "race", "gender", "anchor_age", "dod", "age", "mortality_inunit",
                "mortality", "mortality_inhospital", "ethnicity"]  # fmt: skip
DIAGNOSIS_COLUMNS = ["subject_id", "hadm_id", "seq_num", "icd_code", "icd_version", "stay_id",
                     "HCUP_CCS_2015", "USE_IN_BENCHMARK"]  # fmt: skip
GENDERS = {"F": 1, "M": 2, "": 0}
OTHER_GENDER = 3
UNKNOWN_LABEL = "-1"  # CheXpert's own value for an uncertain finding
MIMIC3_NAMES = {"stay_id": "ICUSTAY_ID", "icd_code": "ICD9_CODE"}  # other columns: in capitals


@dataclass(frozen=True)
class ExportConfig:
    """Write a store in a layout that other software reads: that of a published benchmark, or MEDS."""

    store: Path
    """Folder of the store (made by `python -m datasets.extract`)."""
    out: Path
    """Folder to write; it must not exist yet."""
    layout: Literal["medfuse", "mimic3", "meds"] = "medfuse"
    """medfuse: for readers of MedFuse, MedMod and DrFuse, with stay_id in the listfiles. mimic3: for those of
    mimic3-benchmarks, without it, and with the column names of MIMIC-III. meds: the Medical Event Data
    Standard, with the labels of all tasks."""


def export(config: ExportConfig) -> None:
    """Write the layout under another name and rename it when it is complete.

    Raises:
        ValueError: The folder exists, or the store is damaged, has no samples or is of a former version.
    """
    if config.layout == "meds":  # which needs the kinds of the tasks
        run_next("tasks.meds", "--store", str(config.store), "--out", str(config.out))
        return
    with new_folder(config.out) as folder:
        store = open_with_samples(config.store)
        diagnoses, stays = store.diagnoses(), store.stays()
        _write_layout(store, stays, diagnoses, folder, config.layout)
    logger.info(f"export: {config.out} ({len(stays)} stays)")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill, which becomes `out` when it is complete, and is removed on failure.

    Raises:
        ValueError: `out` exists, or another process is writing it.
    """
    if out.exists():
        raise ValueError(f"{out} exists, and an export is not continued; remove it or give another --out")
    with locked(out.with_name(f".{out.name}.lock"), out, "wait until it has ended"):
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with explain_disk_full(partial, "nothing is left of this one"):
                partial.mkdir(parents=True)
                yield partial
                os.sync()  # once, as it is a file a stay
                partial.rename(out)
                flush(out.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def open_with_samples(folder: Path) -> Store:
    """Open a store that has samples of some task."""
    store = Store.open(folder)
    if not store.tasks:
        command = f"python -m tasks.samples --store {store.folder}"
        raise ValueError(f"{store.folder} has no samples; make them with {command}")
    return store


def _write_layout(
    store: Store, stays: pd.DataFrame, diagnoses: pd.DataFrame, folder: Path, layout: Layout
) -> None:
    _write_subjects(
        published_stays(stays, store.manifest.protocol), stays, diagnoses, folder / "root", layout
    )
    stays_of_tasks = {task: _write_listfiles(store, task, folder / task, layout) for task in store.tasks}
    codes = diagnoses.groupby("stay_id")["icd_code"].agg(set)
    for stay_row, series in _series(store, stays):
        stay = stays.iloc[stay_row]
        episode = published_episode(stay, codes.get(stay["stay_id"], set()), layout)
        tasks = [task for task, rows in stays_of_tasks.items() if stay_row in rows]
        _write_stay(stay, episode, series, folder, tasks)


def published_stays(stays: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return all_stays.csv: STAY_COLUMNS, times as text, and death in the unit as the protocol sees it."""
    if protocol == "medmod":
        died = [stays[name].between(stays["intime"], stays["outtime"]) for name in ("dod", "deathtime")]
        in_unit = died[0] | died[1]
    else:
        in_unit = (stays["mortality"] == 1) & (stays["death_hours"] <= stays["los_hours"])
    texts = {name: stays[name].dt.strftime("%Y-%m-%d %H:%M:%S") for name in TIMES}
    table = stays.assign(
        **texts,
        dod=stays["dod"].dt.strftime("%Y-%m-%d"),
        los=stays["los_hours"] / 24,
        gender=stays["sex"],
        ethnicity=stays["race"],
        mortality_inunit=in_unit.astype(int),
        mortality_inhospital=stays["mortality"],
    )
    return table[STAY_COLUMNS]


def _write_subjects(
    table: pd.DataFrame, stays: pd.DataFrame, diagnoses: pd.DataFrame, root: Path, layout: Layout
) -> None:
    """Write all_stays.csv, and stays.csv and diagnoses.csv of each subject; a condition's code is "used"."""
    codes = diagnoses.merge(stays[["subject_id", "hadm_id", "stay_id"]], on="stay_id")
    used = codes["condition"].notna().astype(int)
    codes = codes.assign(HCUP_CCS_2015=codes["condition"], USE_IN_BENCHMARK=used)[DIAGNOSIS_COLUMNS]
    if layout == "mimic3":
        table = table.drop(columns="race").rename(columns=_mimic3_name)
        codes = codes.rename(columns=_mimic3_name)
    root.mkdir(parents=True)
    table.to_csv(root / "all_stays.csv", index=False)
    codes_of = dict(list(codes.groupby(codes.columns[0])))
    for (subject, split), rows in stays.groupby(["subject_id", "split"]).indices.items():
        folder = root / FOLDERS[split] / str(subject)
        folder.mkdir(parents=True)
        table.iloc[rows].to_csv(folder / "stays.csv", index=False)
        codes_of.get(subject, codes.iloc[:0]).to_csv(folder / "diagnoses.csv", index=False)


def _mimic3_name(column: str) -> str:
    return MIMIC3_NAMES.get(column, column.upper())


def _write_listfiles(store: Store, task: str, folder: Path, layout: Layout) -> set[int]:
    """Write a task's listfiles; return the rows of the stays that it uses."""
    lists = {split: store.listfile(task, split) for split in SPLITS}
    labels = store.tasks[task].labels
    together = pd.concat(list(lists.values()))
    texts = {name: _label_text(together[name]) for name in labels}
    published = together.assign(**texts).drop(columns=list(SAMPLE_COLUMNS))
    if layout == "mimic3":
        unread = ["stay_id", "period_length"] if task == FIRST_48_HOURS else ["stay_id"]
        published = published.drop(columns=unread)
    ends = np.cumsum([len(rows) for rows in lists.values()])
    parts = dict(zip(SPLITS, np.split(np.arange(len(published)), ends[:-1]), strict=True))
    files = {listfile_name(split): rows for split, rows in parts.items()}
    for name in dict.fromkeys(FOLDERS.values()):
        (folder / name).mkdir(parents=True)
        own = [rows for split, rows in parts.items() if FOLDERS[split] == name]
        files[f"{name}/listfile.csv"] = np.concatenate(own)
    for name, rows in files.items():
        published.iloc[rows].to_csv(folder / name, index=False, float_format="%.6f")
    unknown = int(together[labels].isna().to_numpy().sum())
    if unknown:
        logger.info(f"{task}: {unknown} unknown labels are written as {UNKNOWN_LABEL}")
    return set(together["stay_row"].tolist())


def _label_text(label: pd.Series) -> pd.Series:
    """Return a label as the published readers parse it: 0 and 1 without decimals, or hours with six."""
    whole = label.isna() | label.isin([0, 1])
    text = label.map("{:.0f}".format if whole.all() else "{:.6f}".format)
    return text.where(label.notna(), UNKNOWN_LABEL)


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


def _write_stay(
    stay: pd.Series, episode: pd.DataFrame, table: pd.DataFrame, folder: Path, tasks: Sequence[str]
) -> None:
    """Write the subject's episode files, and the series in the folder of each task that uses the stay.

    Each task has a copy of its own, so that a change to one leaves the others as they are.
    """
    subject = folder / "root" / FOLDERS[stay["split"]] / str(stay["subject_id"])
    episode.to_csv(subject / f"episode{stay['episode']}.csv", index=False)
    series = subject / f"episode{stay['episode']}_timeseries.csv"
    table.to_csv(series, index=False)
    for task in tasks:
        path = folder / task / FOLDERS[stay["split"]] / f"{stay['subject_id']}_{series.name}"
        if task == FIRST_48_HOURS:
            table[table["Hours"].astype(float) <= 48 + 1e-6].to_csv(path, index=False)
        else:
            shutil.copyfile(series, path)


def published_episode(stay: pd.Series, codes: set[str], layout: Layout) -> pd.DataFrame:
    """Return the row of episode<n>.csv; `codes` are the admission's ICD codes, of either version.

    Height and weight are the first charted in the admission, even before the stay.
    """
    published = _published_codes()
    columns = published["icd10"].split() if layout == "medfuse" else []
    columns += published["icd9"].split()
    values = {
        "Icustay": stay["stay_id"],
        "Ethnicity": _race_code(stay["race"], layout),
        "Gender": GENDERS.get(_text(stay["sex"]), OTHER_GENDER),
        "Age": stay["age"],
        "Height": stay["height"],
        "Weight": stay["weight"],
        "Length of Stay": stay["los_hours"] / 24,
        "Mortality": stay["mortality"],
    }
    row = [*values.values(), *(int(code in codes) for code in columns)]
    return pd.DataFrame([row], columns=[*values, *(f"Diagnosis {code}" for code in columns)], dtype=object)


def _race_code(race: object, layout: Layout) -> int:
    """Return the published code of a race: that of its first word, as in BLACK/AFRICAN or ASIAN - CHINESE."""
    published = _published_codes()
    name = _text(race).replace(" OR ", "/").split(" - ")[0].split("/")[0]
    if name in published["unknown_race"]:
        return 0
    code: int = published[layout]["race"].get(name, published[layout]["other_race"])
    return code


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)


@cache
def _published_codes() -> Any:
    codes: Any = read_resource(RESOURCES / "published_layouts.yaml")
    return codes


if __name__ == "__main__":
    run_cli(export, ExportConfig)
