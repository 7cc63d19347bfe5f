"""A small random store in the layout that the extraction writes, for tests of what reads stores."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import yaml

from datasets.extract_config import ExtractConfig
from datasets.extraction import extract
from datasets.schema import FINDINGS, IMAGE_SIZE, channel_count, variables
from datasets.store import MANIFEST
from datasets.store_writer import digests, write_manifest, write_parquet, write_samples, write_yaml
from tasks import TASKS, Task
from tasks.samples import make_samples
from utils.arrays import write_array
from utils.files import sha256

LONG_HOURS = 48
START = pd.Timestamp("2150-01-01")
OPTIONS = {"protocol": "medmod", "timestep": 1.0, "uncertain": "zeros", "synthetic": True,
           "synthetic_images": True, "image_cache": IMAGE_SIZE}  # fmt: skip


def write_store(folder: Path, stays: int = 60, images: int = 40, seed: int = 0) -> Path:
    """Write a store of made-up stays and X-rays with the samples of all six tasks; return its folder.

    Every second stay lasts 48 hours or more. Each split has stays and images, if there are some of them. A
    stay's hours differ from those of every other stay: channel 0 of a row of the grid is its stay_row.
    """
    rng = np.random.default_rng(seed)
    table, xrays = _stays(rng, stays), _images(rng, stays, images)
    xrays["hours"] *= table["los_hours"].to_numpy()[xrays["stay_row"]]
    xrays = xrays.sort_values(["stay_row", "hours"]).reset_index(drop=True)
    hours = _hours(rng, np.repeat(np.arange(stays), table["length"]))
    write_array(folder / "hourly.npy", hours)
    shape = xray_shapes(images)
    write_array(folder / "cxr.npy", rng.integers(0, 256, shape.prod(axis=1).sum(), np.uint8))
    xrays = xrays.assign(height=shape[:, 0], width=shape[:, 1])
    write_parquet(folder / "stays.parquet", pl.from_pandas(table))
    write_parquet(folder / "cxr.parquet", pl.from_pandas(_identified(xrays, table)))
    _write_normalizer(folder / "normalizer.json", rng)
    counts = {"stays": stays, "images": images, "hours": len(hours)}
    write_manifest(folder, OPTIONS | counts)
    for name, task in TASKS.items():
        samples, owners = _with_partial_bins(_samples(name, table, xrays, rng))
        with write_samples(folder, name, task.labels, table) as files:
            files.write(samples, _hours(rng, owners))
    return folder


def xray_shapes(count: int) -> np.ndarray:
    """Height and width of X-rays of three shapes in turn, int32 [count, 2]."""
    shapes = [(IMAGE_SIZE, IMAGE_SIZE), (IMAGE_SIZE + 20, IMAGE_SIZE), (IMAGE_SIZE, IMAGE_SIZE + 12)]
    return np.array(shapes, np.int32)[np.arange(count) % 3]


def extract_with_samples(config: ExtractConfig, tasks: Mapping[str, Task] = TASKS) -> None:
    """Do in this process what `python -m datasets.extract` does in all."""
    extract(config)
    make_samples(config.out, tasks.values())


def refresh_manifests(folder: Path) -> None:
    """Make the manifests say what the files are now, as whoever wrote the files would."""
    content = yaml.safe_load((folder / MANIFEST).read_text())
    write_manifest(folder, content)
    for path in folder.glob(f"*/{MANIFEST}"):
        manifest = yaml.safe_load(path.read_text())
        files = {name: asdict(digest) for name, digest in digests(path.parent, manifest["files"]).items()}
        write_yaml(path, manifest | {"store": sha256(folder / MANIFEST), "files": files})


def _hours(rng: np.random.Generator, owners: np.ndarray) -> np.ndarray:
    hours = rng.normal(size=(len(owners), channel_count())).astype(np.float32)
    hours[:, 0] = owners
    return hours


def _stays(rng: np.random.Generator, count: int) -> pd.DataFrame:
    row = np.arange(count)
    length = np.where(
        row % 2 == 0, rng.integers(LONG_HOURS + 1, 72, count), rng.integers(6, LONG_HOURS, count)
    )
    los = length - rng.uniform(0.1, 0.9, count)
    intime = START + pd.to_timedelta(row, unit="D")
    table = pd.DataFrame(
        {
            "subject_id": 10_000_000 + row,
            "hadm_id": 20_000_000 + row,
            "stay_id": 30_000_000 + row,
            "episode": 1,
            "split": np.select([row % 5 == 3, row % 5 == 4], ["val", "test"], "train"),
            "intime": intime,
            "outtime": intime + pd.to_timedelta(los, unit="h"),
            "age": rng.integers(18, 90, count),
            "sex": rng.choice(["F", "M"], count),
            "race": rng.choice(["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN"], count),
            "los_hours": los,
            "mortality": rng.integers(0, 2, count).astype(np.int8),
            "first_event_hours": 0.5,
            "events": length,
            "offset": np.cumsum(length) - length,
            "length": length.astype(np.int32),
        }
    )
    conditions = {name: rng.integers(0, 2, count).astype(np.int8) for name in TASKS["phenotyping"].labels}
    return table.assign(**conditions, readmission=rng.integers(0, 2, count).astype(np.int8))


def _images(rng: np.random.Generator, stays: int, count: int) -> pd.DataFrame:
    """Images on the first half of the stays, some with several; hours as a fraction of the stay."""
    carriers = max(1, stays // 2)
    stay_row = np.where(np.arange(count) < carriers, np.arange(count), rng.integers(0, carriers, count))
    images = pd.DataFrame({"stay_row": stay_row, "hours": rng.uniform(0.02, 0.98, count)})
    for finding in FINDINGS:
        images[finding] = rng.choice([1.0, 0.0, -1.0, np.nan], count)
    return images


def _identified(xrays: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    stays = stays.iloc[xrays["stay_row"]].reset_index(drop=True)
    number = 50_000_000 + np.arange(len(xrays))
    return xrays.assign(
        subject_id=stays["subject_id"],
        stay_id=stays["stay_id"],
        study_id=number,
        dicom_id=[f"d{n}" for n in number],
        view="AP",
        time=stays["intime"] + pd.to_timedelta(xrays["hours"], unit="h"),
    )


def _samples(name: str, stays: pd.DataFrame, xrays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Rows with stay_row, end_hours, period_length, bins, partial, cxr_row and labels."""
    los, length = stays["los_hours"].to_numpy(), stays["length"].to_numpy()
    if name == "in-hospital-mortality":
        rows = pd.DataFrame({"stay_row": np.flatnonzero(los >= LONG_HOURS), "end_hours": float(LONG_HOURS)})
    elif name in ("decompensation", "length-of-stay"):
        hours = [np.arange(5.0, np.floor(end) + 1) for end in los]
        rows = pd.DataFrame(
            {"stay_row": np.repeat(stays.index, [len(h) for h in hours]), "end_hours": np.concatenate(hours)}
        )
    elif name == "radiology":
        rows = pd.DataFrame({"stay_row": xrays["stay_row"], "end_hours": xrays["hours"]})
    else:
        rows = pd.DataFrame({"stay_row": stays.index, "end_hours": los})
    rows["period_length"] = rows["end_hours"]
    rows["bins"] = np.floor(rows["end_hours"] + 1 - 1e-6).astype(np.int64)
    inside = rows["end_hours"].to_numpy() % 1 > 1e-6
    rows["partial"] = inside & (rows["end_hours"].to_numpy() < los[rows["stay_row"]] - 1e-6)
    rows["cxr_row"] = [
        _last_image(xrays, row, end) for row, end in zip(rows["stay_row"], rows["end_hours"], strict=True)
    ]
    assert (rows["bins"] <= length[rows["stay_row"]]).all()
    for label in TASKS[name].labels:
        rows[label] = rng.integers(0, 2, len(rows))
    if name == "length-of-stay":
        rows["y_true"] = los[rows["stay_row"]] - rows["end_hours"]
    return rows


def _last_image(xrays: pd.DataFrame, stay_row: int, end_hours: float) -> int:
    before = np.flatnonzero((xrays["stay_row"] == stay_row) & (xrays["hours"] <= end_hours))
    return int(before[-1]) if len(before) else -1


def _with_partial_bins(samples: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Number the windows that end inside a bin; return the samples, and the stay of each such window."""
    windows = samples.loc[samples["partial"], ["stay_row", "end_hours"]].drop_duplicates()
    number = {window: row for row, window in enumerate(windows.itertuples(index=False, name=None))}
    keys = zip(samples["stay_row"], samples["end_hours"], samples["partial"], strict=True)
    rows = np.array([number[stay, end] if partial else -1 for stay, end, partial in keys], np.int64)
    return samples.assign(partial_bin_row=rows), windows["stay_row"].to_numpy()


def _write_normalizer(path: Path, rng: np.random.Generator) -> None:
    names = [variable.name for variable in variables() if not variable.categories]
    mean, deviation = rng.normal(size=len(names)), rng.uniform(0.5, 2.0, len(names))
    path.write_text(json.dumps({"channels": names, "mean": mean.tolist(), "std": deviation.tolist()}))
