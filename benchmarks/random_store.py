"""A finished store of random stays and X-rays, for what is measured or tested without raw tables."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq

from datasets.events.cleaning import EVENT_DTYPE
from datasets.schema import FINDINGS, IMAGE_SIZE, channel_count, continuous_channels, variables
from datasets.store_writer import events_table, write_manifest, write_parquet, write_samples
from tasks import TASKS
from utils.arrays import write_array
from utils.files import write_text

MEDIAN_HOURS, SIGMA, LONGEST_HOURS = 55.0, 1.04, 2000.0
FIRST_HOUR = 5  # of the samples at each hour
OPTIONS = {"protocol": "medmod", "timestep": 1.0, "uncertain": "zeros", "synthetic": True,
           "synthetic_images": True, "image_cache": IMAGE_SIZE}  # fmt: skip
LONG_SIDE = 308  # of a stored MIMIC-CXR-JPG image, which had 2544 x 3056 pixels


def icu_hours(draw: np.random.Generator, count: int) -> np.ndarray:
    """Draw lengths of ICU stays in hours, int32 [count]: log-normal, 1 to 2,000.

    Median and spread of the logarithm are those of the 140 stays of the open MIMIC-IV demo.
    """
    hours = draw.lognormal(np.log(MEDIAN_HOURS), SIGMA, count)
    return np.rint(hours.clip(1, LONGEST_HOURS)).astype(np.int32)


def write_random_store(
    folder: Path,
    hours: Mapping[str, np.ndarray],
    read_hours: int = 0,
    unpaired: int = 0,
    seed: int = 0,
    first_subject: int = 100,
    hourly: bool = False,
) -> Path:
    """Write a store with a stay of each split for each of its `hours`, int [n]; return its folder.

    A sample of a task reads the first `read_hours` of its stay, or all of it (0). Every stay has an X-ray but
    every `unpaired`-th (0: all have one). Each stay has a subject, numbered from `first_subject` on. Labels
    alternate within each split. With `hourly` a stay has a sample at each hour from the fifth to its end.
    """
    draw = np.random.default_rng(seed)
    stays = _stays(hours).assign(subject_id=lambda stays: first_subject + stays.index)
    grid = draw.normal(size=(stays["length"].sum(), channel_count())).astype(np.float32)
    write_array(folder / "hourly.npy", grid)
    number = np.arange(len(stays))
    images = pd.DataFrame({"stay_row": number[number % unpaired != unpaired - 1] if unpaired else number})
    events = _events(stays, grid)
    stays["events"] = np.bincount(events["stay_row"], minlength=len(stays))
    pq.write_table(events_table(events, stays["stay_id"].to_numpy()), folder / "events.parquet")
    images = images.assign(height=LONG_SIDE, width=IMAGE_SIZE)
    pixels = draw.integers(0, 256, len(images) * LONG_SIDE * IMAGE_SIZE, np.uint8)
    write_array(folder / "cxr.npy", pixels)
    write_parquet(folder / "stays.parquet", pl.from_pandas(stays))
    write_parquet(folder / "cxr.parquet", pl.from_pandas(_images(images, stays)))
    _write_normalizer(folder / "normalizer.json")
    counts = {"stays": len(stays), "images": len(images), "hours": len(grid)}
    write_manifest(folder, OPTIONS | counts)
    _write_samples(folder, stays, images, read_hours, hourly)
    return folder


def _stays(hours: Mapping[str, np.ndarray]) -> pd.DataFrame:
    split = np.repeat(list(hours), [len(part) for part in hours.values()])
    length = np.concatenate(list(hours.values())).astype(np.int32)
    number = np.arange(len(split))
    return pd.DataFrame(
        {
            "hadm_id": 200 + number,
            "stay_id": 300 + number,
            "episode": 1,
            "split": split,
            "los_hours": length - 0.5,
            "mortality": (number % 2).astype(np.int8),
            "readmission": (number % 2).astype(np.int8),
            "offset": (np.cumsum(length) - length).astype(np.int64),
            "length": length,
        }
    )


def _events(stays: pd.DataFrame, grid: np.ndarray) -> np.ndarray:
    """Return an observation for each variable whose mask is above 1 in an hour, as EVENT_DTYPE.

    Each lies half an hour after the hour's begin, and has the value of the grid or its largest category.
    """
    hour = np.concatenate([np.arange(length) for length in stays["length"]])
    stay_row = np.repeat(stays.index.to_numpy(), stays["length"])
    parts = []
    for index, variable in enumerate(variables()):
        rows = np.flatnonzero(grid[:, variable.mask_channel] > 1)
        values = grid[rows, variable.first_channel : variable.first_channel + variable.width]
        part = np.zeros(len(rows), EVENT_DTYPE)
        part["stay_row"], part["second"], part["variable"] = stay_row[rows], hour[rows] * 3600 + 1800, index
        part["value"] = values.argmax(axis=1) if variable.categories else values[:, 0]
        parts.append(part)
    events = np.concatenate(parts)
    ordered: np.ndarray = events[np.lexsort((events["second"], events["stay_row"]))]
    return ordered


def _images(images: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    known = stays.loc[images["stay_row"], ["subject_id", "stay_id", "length"]].reset_index(drop=True)
    hours = np.minimum(20.0, known.pop("length") / 2)
    studies = {"study_id": 500 + images.index, "dicom_id": [f"image-{row}" for row in images.index]}
    findings = {name: (images.index % 2).astype(float) for name in FINDINGS}
    return images.join(known).assign(**studies, view="AP", hours=hours, **findings)


def _write_samples(
    folder: Path, stays: pd.DataFrame, images: pd.DataFrame, read_hours: int, hourly: bool
) -> None:
    cxr_row = pd.Series(images.index, index=images["stay_row"]).reindex(stays.index, fill_value=-1)
    bins = np.minimum(stays["length"], read_hours or stays["length"]).to_numpy(np.int64)
    row = stays.index.to_numpy()
    if hourly:
        ends = [np.arange(min(FIRST_HOUR, length), length + 1) for length in bins]
        row, bins = np.repeat(row, [len(end) for end in ends]), np.concatenate(ends)
    left = np.maximum(stays["los_hours"].to_numpy()[row] - bins, 0.0)
    samples = pd.DataFrame({"stay_row": row, "end_hours": bins.astype(float), "period_length": bins})
    samples = samples.assign(bins=bins, partial_bin_row=-1, cxr_row=cxr_row.to_numpy()[row])
    for task in TASKS.values():
        labels = {name: row // (1 + place % 2) % 2 for place, name in enumerate(task.labels)}
        if task.kind == "ordinal":
            labels = {"y_true": left + 40.0 * (row % 3)}
        with write_samples(folder, task.name, task.labels, stays) as files:
            files.write(samples.assign(**labels), np.empty((0, channel_count()), np.float32))


def _write_normalizer(path: Path) -> None:
    names = [variable.name for variable in variables() if not variable.categories]
    count = len(continuous_channels())
    write_text(path, json.dumps({"channels": names, "mean": [0.0] * count, "std": [1.0] * count}))
