"""A finished store of random stays and X-rays, for what is measured or tested without raw tables."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from datasets.schema import (
    CHANNELS,
    FINDINGS,
    IMAGE_SIZE,
    SPLITS,
    STORE_VERSION,
    continuous_channels,
    variables,
)
from tasks import TASKS

MEDIAN_HOURS, SIGMA, LONGEST_HOURS = 55.0, 1.04, 2000.0


def icu_hours(draw: np.random.Generator, count: int) -> np.ndarray:
    """Lengths of ICU stays in hours, int32 [count]: log-normal, 1 to 2,000.

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
) -> Path:
    """Write a store with a stay of each split for each of its `hours`, int [n]; return its folder.

    A sample of a task reads the first `read_hours` of its stay, or all of it (0). Every stay has an X-ray but
    every `unpaired`-th (0: all have one). Each stay has a subject, numbered from `first_subject` on. Labels
    alternate within each split.
    """
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    stays = _stays(hours).assign(subject_id=lambda stays: first_subject + stays.index)
    grid = draw.normal(size=(stays["length"].sum(), CHANNELS)).astype(np.float32)
    np.save(folder / "hourly.npy", grid)
    number = np.arange(len(stays))
    images = pd.DataFrame({"stay_row": number[number % unpaired != unpaired - 1] if unpaired else number})
    np.save(folder / "cxr.npy", draw.integers(0, 256, (len(images), IMAGE_SIZE, IMAGE_SIZE), np.uint8))
    stays.to_parquet(folder / "stays.parquet")
    _images(images, stays).to_parquet(folder / "cxr.parquet")
    _listfiles(folder, stays, images, read_hours)
    _normalizer(folder)
    _manifest(folder)
    return folder


def _stays(hours: Mapping[str, np.ndarray]) -> pd.DataFrame:
    split = np.repeat(list(hours), [len(part) for part in hours.values()])
    length = np.concatenate(list(hours.values())).astype(np.int32)
    number = np.arange(len(split))
    return pd.DataFrame(
        {
            "hadm_id": 200 + number,
            "stay_id": 300 + number,
            "split": split,
            "los_hours": length - 0.5,
            "mortality": (number % 2).astype(np.int8),
            "readmission": (number % 2).astype(np.int8),
            "offset": (np.cumsum(length) - length).astype(np.int64),
            "length": length,
        }
    )


def _images(images: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    known = stays.loc[images["stay_row"], ["subject_id", "stay_id", "length"]].reset_index(drop=True)
    hours = np.minimum(20.0, known.pop("length") / 2)
    studies = {"study_id": 500 + images.index, "dicom_id": [f"image-{row}" for row in images.index]}
    findings = {name: (images.index % 2).astype(float) for name in FINDINGS}
    return images.join(known).assign(**studies, view="AP", hours=hours, **findings)


def _listfiles(folder: Path, stays: pd.DataFrame, images: pd.DataFrame, read_hours: int) -> None:
    cxr_row = pd.Series(images.index, index=images["stay_row"]).reindex(stays.index, fill_value=-1)
    bins = np.minimum(stays["length"], read_hours or stays["length"])
    left = np.maximum(stays["los_hours"] - bins, 0.0)
    for task in TASKS.values():
        (folder / task.name).mkdir()
        labels = {name: stays.index // (1 + place % 2) % 2 for place, name in enumerate(task.labels)}
        if task.kind == "ordinal":
            labels = {"y_true": left + 40.0 * (stays.index % 3)}
        episode = stays["stay_id"].astype(str) + "_episode.csv"
        samples = pd.DataFrame({"stay": episode, "period_length": bins, "stay_id": stays["stay_id"]})
        samples = samples.assign(**labels, end_hours=bins.astype(float), stay_row=stays.index)
        samples = samples.assign(bins=bins, tail_row=-1, cxr_row=cxr_row)
        for split in SPLITS:
            part = samples[stays["split"] == split]
            part.to_csv(folder / task.name / f"{split}_listfile.csv", index=False)


def _normalizer(folder: Path) -> None:
    names = [variable.name for variable in variables() if not variable.categories]
    count = len(continuous_channels())
    fitted = {"channels": names, "mean": [0.0] * count, "std": [1.0] * count}
    (folder / "normalizer.json").write_text(json.dumps(fitted))


def _manifest(folder: Path) -> None:
    files = {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {"store_version": STORE_VERSION, "timestep": 1.0, "synthetic": True, "synthetic_images": True}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content | {"files": files}))
