"""A finished store of random stays, for tests of what reads one."""

import hashlib
import json
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

STAYS = {"train": 14, "val": 8, "test": 8}


def write_random_store(folder: Path, seed: int = 0, first_subject: int = 100) -> Path:
    """Stays of 49 to 60 hours, one a subject; three of four have an X-ray at hour 20; labels alternate.

    Subjects are numbered from `first_subject` on, those of train first, then val, then test.
    """
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    stays = _stays(draw).assign(subject_id=lambda stays: first_subject + stays.index)
    grid = draw.normal(size=(stays["length"].sum(), CHANNELS)).astype(np.float32)
    np.save(folder / "hourly.npy", grid)
    images = pd.DataFrame({"stay_row": np.flatnonzero(np.arange(len(stays)) % 4 != 3)})
    np.save(folder / "cxr.npy", draw.integers(0, 256, (len(images), IMAGE_SIZE, IMAGE_SIZE), np.uint8))
    stays.to_parquet(folder / "stays.parquet")
    _images(images, stays).to_parquet(folder / "cxr.parquet")
    _listfiles(folder, stays, images)
    _normalizer(folder)
    _manifest(folder)
    return folder


def _stays(draw: np.random.Generator) -> pd.DataFrame:
    split = np.repeat(list(STAYS), list(STAYS.values()))
    length = draw.integers(49, 61, len(split)).astype(np.int32)
    offset = np.cumsum(length) - length
    number = np.arange(len(split))
    return pd.DataFrame(
        {
            "hadm_id": 200 + number,
            "stay_id": 300 + number,
            "split": split,
            "los_hours": length - 0.5,
            "mortality": (number % 2).astype(np.int8),
            "readmission": (number % 2).astype(np.int8),
            "offset": offset.astype(np.int64),
            "length": length,
        }
    )


def _images(images: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    known = stays.loc[images["stay_row"], ["subject_id", "stay_id"]].reset_index(drop=True)
    studies = {"study_id": 500 + images.index, "dicom_id": [f"image-{row}" for row in images.index]}
    findings = {name: (images.index % 2).astype(float) for name in FINDINGS}
    return images.join(known).assign(**studies, view="AP", hours=20.0, **findings)


def _listfiles(folder: Path, stays: pd.DataFrame, images: pd.DataFrame) -> None:
    cxr_row = pd.Series(images.index, index=images["stay_row"]).reindex(stays.index, fill_value=-1)
    for task in TASKS.values():
        (folder / task.name).mkdir()
        labels = {name: stays.index // (1 + place % 2) % 2 for place, name in enumerate(task.labels)}
        if task.kind == "ordinal":
            labels = {"y_true": stays["los_hours"] - 48 + 40.0 * (stays.index % 3)}
        samples = pd.DataFrame({"stay": stays["stay_id"].astype(str) + "_episode.csv", "period_length": 48})
        samples = samples.assign(stay_id=stays["stay_id"], **labels, end_hours=48.0, stay_row=stays.index)
        samples = samples.assign(bins=48, tail_row=-1, cxr_row=cxr_row)
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
