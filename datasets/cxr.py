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

from datasets.raw import unique
from datasets.schema import FINDINGS, IMAGE_SIZE
from utils.files import write_array, write_text
from utils.threads import in_order

IMAGES_PER_PART = 256
AHEAD = 32  # images a core that are decoded while a part goes to the disk
SMALLEST_SIDE = 64  # pixels; anything smaller is no radiograph
MOST_PIXELS_A_BYTE = 512  # JPEG has at least a bit for each block of 8 x 8
END_OF_IMAGE, END_WITHIN = b"\xff\xd9", 4096  # the marker, and how far from the end of a file it may stand


def study_time() -> pl.Expr:
    """StudyDate (YYYYMMDD) and StudyTime (HHMMSS.fff without its leading zeros) as one time; null if it is
    none.

    >>> frame = pl.DataFrame({"StudyDate": [21500131], "StudyTime": [2959.812]})
    >>> str(frame.select(study_time())["time"][0])
    '2150-01-31 00:29:59.812000'
    """
    date = pl.col("StudyDate").cast(pl.String).str.to_datetime("%Y%m%d", strict=False, time_unit="us")
    of_a_day = pl.when(pl.col("StudyTime").is_between(0, 240000)).then("StudyTime")
    milliseconds = (of_a_day * 1000).round().cast(pl.Int64)
    clock, rest = milliseconds // 1000, milliseconds % 1000
    hours, minutes, seconds = clock // 10000, clock // 100 % 100, clock % 100
    valid = (hours < 24) & (minutes < 60) & (seconds < 60)
    offset = pl.duration(hours=hours, minutes=minutes, seconds=seconds, milliseconds=rest)
    return pl.when(valid).then(date + offset).alias("time")


def link_images(
    metadata: pl.DataFrame, chexpert: pl.DataFrame, stays: pl.DataFrame, views: tuple[str, ...]
) -> pl.DataFrame:
    """Images of the wanted views, with findings, taken during a stay: a row an image, ordered by stay and
    time.

    `stays` has stay_row, subject_id, stay_id, intime and los_hours; `hours` counts from intime to the image.
    An image whose time is none belongs to no stay.

    Raises:
        ValueError: an id that should be unique is not, a dicom_id is no file name, or a finding none of
            CheXpert's values.
    """
    chexpert = chexpert.with_columns(pl.col(FINDINGS).fill_nan(None))
    _check(metadata, chexpert)
    studies = metadata.filter(pl.col("ViewPosition").is_in(views)).with_columns(study_time())
    hours = (pl.col("time") - pl.col("intime")).dt.total_microseconds() / 3.6e9
    own = stays.select("stay_row", "subject_id", "stay_id", "intime", "los_hours")
    return (
        studies.join(chexpert, on=["subject_id", "study_id"])
        .join(own, on="subject_id")
        .with_columns(hours=hours, view="ViewPosition")
        .filter(pl.col("hours").is_between(0, pl.col("los_hours")))
        .select(
            "stay_row", "subject_id", "stay_id", "study_id", "dicom_id", "view", "hours", "time", *FINDINGS
        )
        .sort("stay_row", "hours", "study_id", "dicom_id")
    )


def _check(metadata: pl.DataFrame, chexpert: pl.DataFrame) -> None:
    unique(metadata, ["dicom_id"], "metadata")
    outside = metadata.filter(~pl.col("dicom_id").str.contains(r"^\w[\w.-]*$"))
    if len(outside):
        raise ValueError(
            f"mimic-cxr-*-metadata: {len(outside)} dicom_id are no file names (first: in study "
            f"{outside['study_id'][0]}); use the release's file"
        )
    unique(chexpert, ["study_id", "subject_id"], "chexpert")
    for finding in FINDINGS:
        odd = chexpert.filter(~pl.col(finding).is_in([-1.0, 0.0, 1.0]).fill_null(True))
        if len(odd):
            raise ValueError(
                f"mimic-cxr-*-chexpert: {finding} is none of 1, 0, -1 and empty in {len(odd)} rows (first: "
                f"of study {odd['study_id'][0]}); use the release's file"
            )


def image_path(root: Path, subject_id: int, study_id: int, dicom_id: str) -> Path:
    """Where MIMIC-CXR-JPG keeps an image.

    >>> image_path(Path("cxr"), 10000001, 50000001, "ab12").as_posix()
    'cxr/files/p10/p10000001/s50000001/ab12.jpg'
    """
    subject = f"p{subject_id}"
    return root / "files" / subject[:3] / subject / f"s{study_id}" / f"{dicom_id}.jpg"


def read_image(path: Path) -> np.ndarray | str:
    """A JPEG as grey uint8 [256, 256], or the reason why it cannot be used.

    The decoder scales by a power of two while it decodes (JPEG DCT scaling), so that a full-size image costs
    little.
    """
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            size = image.size
            if min(size) < SMALLEST_SIDE:
                return f"only {size[0]}x{size[1]} pixels"
            image.draft("L", (IMAGE_SIZE, IMAGE_SIZE))
            grey = image.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        return "missing"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"unreadable: {error}".replace(str(path), path.name)
    return _cut_off(size, path) or np.asarray(grey)


def _cut_off(size: tuple[int, int], path: Path) -> str:
    """Why a JPEG of some size in pixels cannot be whole, "" if it can; the decoder fills up what is
    missing.
    """
    held = path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(held, END_WITHIN), os.SEEK_END)
        ended = END_OF_IMAGE in file.read()
    if size[0] * size[1] > MOST_PIXELS_A_BYTE * held:
        return f"cut off: {held} bytes for {size[0]}x{size[1]} pixels"
    return "" if ended else "cut off: no end of image"


def cache_images(
    images: pl.DataFrame, root: Path, folder: Path
) -> tuple[Iterator[np.ndarray], list[str | None]]:
    """Decode all images on all cores into parts of `folder`, each written whole; parts already there are
    kept.

    Returns the parts in order, uint8 [n, 256, 256] without the rejected images, and for each image why it was
    rejected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        image_path(root, *row) for row in images.select("subject_id", "study_id", "dicom_id").iter_rows()
    ]
    starts = range(0, len(paths), IMAGES_PER_PART)
    # A run that was killed while it tidied up may leave one file of the two.
    missing = [s for s in starts if not all(path.exists() for path in _part(folder, s))]
    wanted = (path for start in missing for path in paths[start : start + IMAGES_PER_PART])
    reasons: list[str | None] = []
    with (
        closing(in_order(read_image, wanted, os.cpu_count() or 1, AHEAD)) as read,
        tqdm(total=len(paths), desc="X-rays", unit="image", disable=None) as progress,
    ):
        for start in starts:
            count = min(IMAGES_PER_PART, len(paths) - start)
            if start in missing:
                _write_part(folder, start, list(islice(read, count)))
            reasons += json.loads(_part(folder, start)[1].read_text())
            progress.update(count)
    return (np.load(_part(folder, start)[0]) for start in starts), reasons


def _part(folder: Path, start: int) -> tuple[Path, Path]:
    """Where a part's images are, and the reasons why others are not."""
    return folder / f"{start:08d}.npy", folder / f"{start:08d}.json"


def _write_part(folder: Path, start: int, read: list[np.ndarray | str]) -> None:
    images, told = _part(folder, start)
    kept = [image for image in read if not isinstance(image, str)]
    write_array(images, np.array(kept, np.uint8).reshape(len(kept), IMAGE_SIZE, IMAGE_SIZE))
    write_text(told, json.dumps([image if isinstance(image, str) else None for image in read]))
