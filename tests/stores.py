"""A small random store in the layout that the extraction writes, for tests of what reads stores."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from datasets.schema import CHANNELS, FINDINGS, IMAGE_SIZE, SAMPLE_COLUMNS, SPLITS, STORE_VERSION, variables
from tasks import TASKS

LONG_HOURS = 48
START = pd.Timestamp("2150-01-01")


def write_store(folder: Path, stays: int = 60, images: int = 40, seed: int = 0) -> Path:
    """Write a store of made-up stays and X-rays with the listfiles of all six tasks; return its folder.

    Every second stay lasts 48 hours or more. Each split has stays and images, if there are some of them. A
    stay's hours differ from those of every other stay: channel 0 of a row of the grid is its stay_row.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    table, xrays = _stays(rng, stays), _images(rng, stays, images)
    xrays["hours"] *= table["los_hours"].to_numpy()[xrays["stay_row"]]
    xrays = xrays.sort_values(["stay_row", "hours"]).reset_index(drop=True)
    samples = {name: _samples(name, table, xrays, rng) for name in TASKS}
    tails = _number_tails(samples, int(table["length"].sum()))
    owners = np.concatenate([np.repeat(np.arange(stays), table["length"]), tails]).astype(np.int64)
    hourly = rng.normal(size=(len(owners), CHANNELS)).astype(np.float32)
    hourly[:, 0] = owners
    np.save(folder / "hourly.npy", hourly)
    np.save(folder / "cxr.npy", rng.integers(0, 256, (images, IMAGE_SIZE, IMAGE_SIZE), np.uint8))
    table.to_parquet(folder / "stays.parquet")
    _identified(xrays, table).to_parquet(folder / "cxr.parquet")
    for name, rows in samples.items():
        _write_listfiles(folder / name, rows, table, TASKS[name].labels)
    _write_normalizer(folder / "normalizer.json", rng)
    write_manifest(folder, stays=stays, images=images, hours=len(owners))
    return folder


def write_manifest(folder: Path, **counts: int) -> None:
    """Write the manifest of the files that are there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.yaml")
    file_digest = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
    head = {
        "store_version": STORE_VERSION,
        "protocol": "medmod",
        "timestep": 1.0,
        "views": ["AP"],
        "synthetic": True,
        "synthetic_images": True,
        "uncertain": "zeros",
    }
    content = {**head, **counts, "inputs": {}, "versions": {}, "files": file_digest}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


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
    found = pd.DataFrame({"stay_row": stay_row, "hours": rng.uniform(0.02, 0.98, count)})
    for finding in FINDINGS:
        found[finding] = rng.choice([1.0, 0.0, -1.0, np.nan], count)
    return found


def _identified(xrays: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    own = stays.iloc[xrays["stay_row"]].reset_index(drop=True)
    number = 50_000_000 + np.arange(len(xrays))
    return xrays.assign(
        subject_id=own["subject_id"],
        stay_id=own["stay_id"],
        study_id=number,
        dicom_id=[f"d{n}" for n in number],
        view="AP",
        time=own["intime"] + pd.to_timedelta(xrays["hours"], unit="h"),
    )


def _samples(name: str, stays: pd.DataFrame, xrays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Rows with stay_row, end_hours, bins, cuts, cxr_row and labels."""
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
    rows["bins"] = np.floor(rows["end_hours"] + 1 - 1e-6).astype(np.int64)
    inside = rows["end_hours"].to_numpy() % 1 > 1e-6
    rows["cuts"] = inside & (rows["end_hours"].to_numpy() < los[rows["stay_row"]] - 1e-6)
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
    found = np.flatnonzero((xrays["stay_row"] == stay_row) & (xrays["hours"] <= end_hours))
    return int(found[-1]) if len(found) else -1


def _number_tails(samples: dict[str, pd.DataFrame], first: int) -> np.ndarray:
    """Add tail_row to the samples that end inside a bin; return the stay of each such row."""
    cuts = pd.concat([rows.loc[rows["cuts"], ["stay_row", "end_hours"]] for rows in samples.values()])
    cuts = cuts.drop_duplicates().sort_values(["stay_row", "end_hours"]).reset_index(drop=True)
    number = {tuple(cut): first + place for place, cut in enumerate(cuts.itertuples(index=False, name=None))}
    for rows in samples.values():
        moments = zip(rows["stay_row"], rows["end_hours"], rows["cuts"], strict=True)
        rows["tail_row"] = [number[stay, end] if cut else -1 for stay, end, cut in moments]
    return cuts["stay_row"].to_numpy()


def _write_listfiles(folder: Path, rows: pd.DataFrame, stays: pd.DataFrame, labels: tuple[str, ...]) -> None:
    folder.mkdir()
    own = stays.iloc[rows["stay_row"]].reset_index(drop=True)
    names = own["subject_id"].astype(str) + "_episode1_timeseries.csv"
    table = pd.DataFrame({"stay": names, "period_length": rows["end_hours"], "stay_id": own["stay_id"]})
    table = table.join(rows[[*labels, *SAMPLE_COLUMNS]])
    for split in SPLITS:
        table[own["split"] == split].to_csv(folder / f"{split}_listfile.csv", index=False)


def _write_normalizer(path: Path, rng: np.random.Generator) -> None:
    names = [variable.name for variable in variables() if not variable.categories]
    mean, deviation = rng.normal(size=len(names)), rng.uniform(0.5, 2.0, len(names))
    path.write_text(json.dumps({"channels": names, "mean": mean.tolist(), "std": deviation.tolist()}))
