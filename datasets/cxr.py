"""Chest X-rays: studies and findings, the images of each ICU stay, and the image cache."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from tqdm import tqdm

from datasets.raw.reading import check_unique_ids
from datasets.schema import FINDINGS, IMAGE_SIZE
from utils.files import write_array, write_text
from utils.machine import available_cpus
from utils.threads import in_order

IMAGES_PER_PART = 256
LOOKAHEAD = 32  # images per core that are decoded while a part is written
SMALLEST_SIDE = 64  # pixels; a smaller image is not a radiograph
MAX_PIXELS_PER_BYTE = 512  # JPEG needs at least one bit for each block of 8 x 8 pixels
END_OF_IMAGE = b"\xff\xd9"
END_SEARCHED = 4096  # bytes at the end of a file, among which the end-of-image marker must be


def study_time() -> pl.Expr:
    """Combine StudyDate (YYYYMMDD) and StudyTime (HHMMSS.fff, a number); null if invalid."""
    date = pl.col("StudyDate").cast(pl.String).str.to_datetime("%Y%m%d", strict=False, time_unit="us")
    in_range = pl.when(pl.col("StudyTime").is_between(0, 240000)).then("StudyTime")
    milliseconds = (in_range * 1000).round().cast(pl.Int64)
    clock = milliseconds // 1000
    hours, minutes, seconds = clock // 10000, clock // 100 % 100, clock % 100
    valid = (hours < 24) & (minutes < 60) & (seconds < 60)
    offset = pl.duration(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds % 1000)
    return pl.when(valid).then(date + offset).alias("time")


def link_images(
    metadata: pl.DataFrame, chexpert: pl.DataFrame, stays: pl.DataFrame, views: tuple[str, ...]
) -> pl.DataFrame:
    """Return images of some views taken during a stay, with findings and `hours` since intime."""
    _check_tables(metadata, chexpert)
    studies = metadata.filter(pl.col("ViewPosition").is_in(views)).with_columns(study_time())
    hours = (pl.col("time") - pl.col("intime")).dt.total_microseconds() / 3.6e9
    return (
        studies.join(chexpert, on=["subject_id", "study_id"])
        .join(stays.select("stay_row", "subject_id", "stay_id", "intime", "los_hours"), on="subject_id")
        .with_columns(hours=hours, view="ViewPosition")
        .filter(pl.col("hours").is_between(0, pl.col("los_hours")))
        .select(
            "stay_row", "subject_id", "stay_id", "study_id", "dicom_id", "view", "hours", "time", *FINDINGS
        )
        .sort("stay_row", "hours", "study_id", "dicom_id")
    )


def _check_tables(metadata: pl.DataFrame, chexpert: pl.DataFrame) -> None:
    check_unique_ids(metadata, ["dicom_id"], "metadata")
    invalid = metadata.filter(~pl.col("dicom_id").str.contains(r"^\w[\w.-]*$"))
    if len(invalid):
        raise ValueError(
            f"mimic-cxr-*-metadata: {len(invalid)} dicom_id are not file names (first: study "
            f"{invalid['study_id'][0]}); use the release's file"
        )
    check_unique_ids(chexpert, ["study_id", "subject_id"], "chexpert")
    for finding in FINDINGS:
        invalid = chexpert.filter(~pl.col(finding).is_in([-1.0, 0.0, 1.0]).fill_null(True))
        if len(invalid):
            raise ValueError(
                f"mimic-cxr-*-chexpert: {finding} must be 1, 0, -1 or empty, but is not in {len(invalid)} "
                f"rows (first: study {invalid['study_id'][0]}); use the release's file"
            )


def image_path(root: Path, subject_id: int, study_id: int, dicom_id: str) -> Path:
    """Return the path of an image in MIMIC-CXR-JPG.

    >>> image_path(Path("cxr"), 10000001, 50000001, "ab12").as_posix()
    'cxr/files/p10/p10000001/s50000001/ab12.jpg'
    """
    subject = f"p{subject_id}"
    return root / "files" / subject[:3] / subject / f"s{study_id}" / f"{dicom_id}.jpg"


def read_image(path: Path) -> np.ndarray | str:
    """Read a JPEG as greyscale uint8 [256, 256], or return the reason why it cannot be used."""
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            width, height = image.size
            if min(image.size) < SMALLEST_SIDE:
                return f"only {width}x{height} pixels"
            image.draft("L", (IMAGE_SIZE, IMAGE_SIZE))
            pixels = image.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        return "missing"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"unreadable: {error}".replace(str(path), path.name)
    return _truncation(path, width, height) or np.asarray(pixels)


def _truncation(path: Path, width: int, height: int) -> str:
    """Return why a JPEG looks truncated, or "". Needed because Pillow fills missing data silently."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(size, END_SEARCHED), os.SEEK_END)
        has_end = END_OF_IMAGE in file.read()
    if width * height > MAX_PIXELS_PER_BYTE * size:
        return f"cut off: {size} bytes for {width}x{height} pixels"
    return "" if has_end else "cut off: no end of image"


def cache_images(
    images: pl.DataFrame, root: Path, folder: Path
) -> tuple[Iterator[np.ndarray], list[str | None]]:
    """Decode images on all cores into parts in `folder`, and keep the parts that are already there.

    Return the parts, uint8 [n, 256, 256] without rejected images, and why each image was rejected, or None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = images.select("subject_id", "study_id", "dicom_id").iter_rows()
    paths = [image_path(root, *row) for row in ids]
    starts = range(0, len(paths), IMAGES_PER_PART)
    # A run that was killed while it removed the parts may have left one of a part's two files.
    missing = [start for start in starts if not all(path.exists() for path in _part_paths(folder, start))]
    to_read = (path for start in missing for path in paths[start : start + IMAGES_PER_PART])
    reasons: list[str | None] = []
    with (
        closing(in_order(read_image, to_read, available_cpus(), LOOKAHEAD)) as decoded,
        tqdm(total=len(paths), desc="X-rays", unit="image", disable=None) as progress,
    ):
        for start in starts:
            count = min(IMAGES_PER_PART, len(paths) - start)
            if start in missing:
                _write_part(folder, start, list(islice(decoded, count)))
            reasons += json.loads(_part_paths(folder, start)[1].read_text())
            progress.update(count)
    return (np.load(_part_paths(folder, start)[0]) for start in starts), reasons


def _part_paths(folder: Path, start: int) -> tuple[Path, Path]:
    """Return the files of a part's images and of the reasons why others were rejected."""
    return folder / f"{start:08d}.npy", folder / f"{start:08d}.json"


def _write_part(folder: Path, start: int, decoded: list[np.ndarray | str]) -> None:
    images_path, reasons_path = _part_paths(folder, start)
    images = [image for image in decoded if not isinstance(image, str)]
    write_array(images_path, np.array(images, np.uint8).reshape(len(images), IMAGE_SIZE, IMAGE_SIZE))
    write_text(reasons_path, json.dumps([image if isinstance(image, str) else None for image in decoded]))
