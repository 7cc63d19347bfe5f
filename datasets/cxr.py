"""Chest X-rays: studies and findings, the images of each ICU stay, and the image cache."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from PIL import Image
from tqdm import tqdm

from datasets.pixels import PackedImages
from datasets.raw.cells import FIRST_YEAR
from datasets.raw.reading import check_unique_ids
from datasets.schema import FINDINGS, IMAGE_SIZE, SMALLEST_SIDE
from utils.arrays import write_array
from utils.files import write_text
from utils.log import logger
from utils.machine import available_cpus
from utils.threads import in_order

IMAGES_PER_PART = 256
IMAGES_AT_ONCE = 8  # that a thread decodes; small ones take hardly longer than it takes to hand one over
LOOKAHEAD = 4  # times as many per core are decoded while a part is written
LONGEST = 4  # longer side of a stored image at most, in shorter sides that images have
MAX_PIXELS_PER_BYTE = 512  # JPEG needs at least one bit for each block of 8 x 8 pixels
IMAGE_SUFFIXES = {".jpg": 0, ".jpeg": 1, ".png": 2}  # the first is preferred
END_OF_IMAGE = b"\xff\xd9"
END_SEARCHED = 4096  # bytes at the end of a file, among which the end-of-image marker must be

Outcome = str | tuple[int, int]  # of an image: why it was rejected, or its height and width


def study_time() -> pl.Expr:
    """Combine StudyDate (YYYYMMDD) and StudyTime (HHMMSS.fff, a number); null if invalid.

    Times are rounded to milliseconds: 59.9995 is one minute after midnight.
    """
    has_year = pl.col("StudyDate").is_between(FIRST_YEAR * 10_000, 99991231)
    date = (
        pl.when(has_year)
        .then("StudyDate")
        .cast(pl.String)
        .str.to_datetime("%Y%m%d", strict=False, time_unit="us")
    )
    number = pl.when(pl.col("StudyTime").is_between(0, 240000)).then("StudyTime")
    clock = number.floor().cast(pl.Int64)
    hours, minutes, seconds = clock // 10000, clock // 100 % 100, clock % 100
    valid = (hours < 24) & (minutes < 60) & (seconds < 60)
    milliseconds = (number * 1000).round().cast(pl.Int64) - clock * 1000  # 1000 carries over
    offset = pl.duration(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    return pl.when(valid).then(date + offset).alias("time")


def _view() -> pl.Expr:
    return pl.col("ViewPosition").str.strip_chars().str.to_uppercase()


def link_images(
    metadata: pl.DataFrame, chexpert: pl.DataFrame, stays: pl.DataFrame, views: tuple[str, ...]
) -> pl.DataFrame:
    """Return images of some views taken during a stay, with findings and `hours` since intime."""
    _check_tables(metadata, chexpert)
    studies = metadata.filter(_view().is_in(views)).with_columns(study_time(), ViewPosition=_view())
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


def check_linked(
    images: pl.DataFrame,
    metadata: pl.DataFrame,
    chexpert: pl.DataFrame,
    stays: pl.DataFrame,
    views: Sequence[str],
) -> None:
    """Check that each view exists, and that `link_images` has found an X-ray.

    Raises:
        ValueError: With the views that exist, or how many images each condition leaves.
    """
    existing = dict(
        metadata.drop_nulls("ViewPosition")
        .select(_view().value_counts(sort=True))
        .unnest("ViewPosition")
        .iter_rows()
    )
    if absent := [view for view in views if view not in existing]:
        listed = ", ".join(f"{view} ({count})" for view, count in existing.items()) or "no view at all"
        raise ValueError(f"--views {', '.join(absent)}: mimic-cxr-*-metadata has {listed}")
    if images.is_empty():
        of_cohort = metadata.join(stays, on="subject_id", how="semi")
        seen = of_cohort.filter(_view().is_in(views))
        labelled = seen.join(chexpert, on=["subject_id", "study_id"], how="semi")
        raise ValueError(
            f"no X-ray belongs to a stay: mimic-cxr-*-metadata has {len(metadata)} images, {len(of_cohort)} "
            f"of the cohort's subjects; {len(seen)} of these have a view of --views, {len(labelled)} of "
            f"these a row in mimic-cxr-*-chexpert, and none was taken during one of the {len(stays)} stays "
            "that the rules keep of icustays; use the MIMIC-CXR-JPG that goes with this MIMIC-IV, or leave "
            "out --mimic_cxr"
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
    return root / image_name(subject_id, study_id, dicom_id)


def image_name(subject_id: int, study_id: int, dicom_id: str) -> str:
    """Return the path of an image below the folder of MIMIC-CXR-JPG.

    >>> image_name(10000001, 50000001, "ab12")
    'files/p10/p10000001/s50000001/ab12.jpg'
    """
    subject = f"p{subject_id}"
    return f"files/{subject[:3]}/{subject}/s{study_id}/{dicom_id}.jpg"


def find_images(images: pl.DataFrame, root: Path) -> list[Path]:
    """Return the path of each image: that of the release, or where else below `root` a file has its name.

    The latter only if no image is where the release has it. A JPEG is taken before a PNG.
    """
    ids = images.select("subject_id", "study_id", "dicom_id").iter_rows()
    published = [image_path(root, *row) for row in ids]
    if any(path.exists() for path in published):
        return published
    names = {path.stem for path in published}
    found: dict[str, Path] = {}
    for path in _files_below(root) if names else ():
        rank = IMAGE_SUFFIXES.get(path.suffix.lower())
        if path.stem in names and rank is not None:
            kept = found.setdefault(path.stem, path)
            if rank < IMAGE_SUFFIXES[kept.suffix.lower()]:
                found[path.stem] = path
    if found:
        logger.info(
            f"X-rays: none as in the release; {len(found)} found by name, such as {min(found.values())}"
        )
    return [found.get(path.stem, path) for path in published]


def _files_below(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, in the order of their names, through links too."""
    visited = set()
    for folder, inside, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        inside[:] = [] if real in visited else sorted(inside)
        if real not in visited:
            yield from (Path(folder, name) for name in sorted(names))
        visited.add(real)


def stored_shape(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height of a stored image: the shorter is `side`, the longer at most LONGEST sides.

    >>> stored_shape(2544, 3056, 256), stored_shape(64, 2048, 256)
    ((256, 308), (32, 1024))
    """
    scale = min(side / min(width, height), LONGEST * side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def read_image(path: Path, side: int = IMAGE_SIZE) -> np.ndarray | str:
    """Read a JPEG or PNG as greyscale uint8 [height, width], its shape kept and its shorter side `side`.

    Return the reason if it cannot be used. The decoder scales by a power of two, so that it is asked for at
    least twice the pixels along each side. A filter then resizes them: the sharpness of an image would
    otherwise jump where its own size passes a power of two times `side`.
    """
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            width, height = image.size
            is_jpeg = image.format == "JPEG"  # whatever the suffix says
            if min(image.size) < SMALLEST_SIDE:
                return f"only {width}x{height} pixels"
            if image.mode.startswith(("I", "F")):
                return "more than 8 bits a pixel: convert it to 8"
            shape = stored_shape(width, height, side)
            image.draft("L", (2 * shape[0], 2 * shape[1]))
            pixels = image.convert("L").resize(shape, Image.Resampling.HAMMING)
    except FileNotFoundError:
        return "missing"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"unreadable: {error}".replace(str(path), path.name)
    return (_truncation(path, width, height) if is_jpeg else "") or np.asarray(pixels)


def _truncation(path: Path, width: int, height: int) -> str:
    """Return why a JPEG looks truncated, or "". Needed because Pillow fills missing data silently."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(size, END_SEARCHED), os.SEEK_END)
        has_end = END_OF_IMAGE in file.read()
    if width * height > MAX_PIXELS_PER_BYTE * size:
        return f"cut off: {size} bytes for {width}x{height} pixels"
    return "" if has_end else "cut off: no end of image"


@dataclass(frozen=True)
class DecodedImages:
    """The images of a store, by the row of each dicom_id; others are read with a shorter side of `side`."""

    row: Mapping[str, int]
    images: PackedImages | None
    side: int

    @classmethod
    def load(cls, folder: Path, side: int) -> Self:
        """Load cxr.parquet and cxr.npy of a folder; no image if one of the two is not there."""
        paths = folder / "cxr.parquet", folder / "cxr.npy"
        if not all(path.exists() for path in paths):
            return cls({}, None, side)
        table = pl.read_parquet(paths[0], columns=["dicom_id", "height", "width"], glob=False)
        height, width = (table[name].to_numpy().astype(np.int64) for name in ("height", "width"))
        images = PackedImages(np.load(paths[1], mmap_mode="r"), height, width, side)
        return cls({name: row for row, name in enumerate(table["dicom_id"])}, images, side)

    def read(self, path: Path) -> np.ndarray | str:
        """Return an image that is here, or read it from its file."""
        row = self.row.get(path.stem)
        return read_image(path, self.side) if row is None or self.images is None else self.images[row]


def any_readable(paths: Iterable[Path]) -> bool:
    """Return whether one of these images, which were rejected before, can be used now."""
    return any(not isinstance(read_image(path), str) for path in paths)


def cache_images(
    images: pl.DataFrame,
    root: Path,
    folder: Path,
    read: Callable[[Path], np.ndarray | str] = read_image,
) -> tuple[Iterator[np.ndarray], list[Outcome]]:
    """Decode images on all cores into parts in `folder`, and keep the parts that are already there.

    Return the parts, uint8 [pixels of the images that were not rejected], and what became of each image.

    Raises:
        ValueError: Every image was rejected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = find_images(images, root)
    starts = range(0, len(paths), IMAGES_PER_PART)
    missing = [start for start in starts if not _is_finished(folder, start, paths)]
    to_read = [path for start in missing for path in paths[start : start + IMAGES_PER_PART]]
    groups = (to_read[start : start + IMAGES_AT_ONCE] for start in range(0, len(to_read), IMAGES_AT_ONCE))
    outcomes: list[Outcome] = []
    with (
        closing(
            in_order(lambda some: list(map(read, some)), groups, available_cpus(), LOOKAHEAD)
        ) as read_groups,
        tqdm(total=len(paths), desc="X-rays", unit="image", disable=None) as progress,
    ):
        decoded = chain.from_iterable(read_groups)
        for start in starts:
            count = min(IMAGES_PER_PART, len(paths) - start)
            if start in missing:
                _write_part(folder, start, list(islice(decoded, count)))
            outcomes += _outcomes(folder, start)
            progress.update(count)
    if paths and all(isinstance(outcome, str) for outcome in outcomes):
        raise ValueError(
            f"none of the {len(paths)} X-rays can be used (first: {paths[0]}: {outcomes[0]}); --mimic_cxr is "
            "the folder that holds files/, or JPEG or PNG files whose names are the dicom_id"
        )
    return (np.load(_part_paths(folder, start)[0]) for start in starts), outcomes


def _is_finished(folder: Path, start: int, paths: Sequence[Path]) -> bool:
    """Return whether a part is complete, and no image that was rejected can be used by now."""
    files = _part_paths(folder, start)
    if not all(path.exists() for path in files):  # a run may have been killed while it removed them
        return False
    outcomes = zip(paths[start:], _outcomes(folder, start), strict=False)
    return not any_readable(path for path, outcome in outcomes if isinstance(outcome, str))


def _outcomes(folder: Path, start: int) -> list[Outcome]:
    listed = json.loads(_part_paths(folder, start)[1].read_text())
    return [outcome if isinstance(outcome, str) else tuple(outcome) for outcome in listed]


def _part_paths(folder: Path, start: int) -> tuple[Path, Path]:
    """Return the files of a part's pixels and of what became of each image."""
    return folder / f"{start:08d}.npy", folder / f"{start:08d}.json"


def _write_part(folder: Path, start: int, decoded: list[np.ndarray | str]) -> None:
    pixels_path, outcomes_path = _part_paths(folder, start)
    images = [image.reshape(-1) for image in decoded if not isinstance(image, str)]
    write_array(pixels_path, np.concatenate([np.empty(0, np.uint8), *images]))
    outcomes = [image if isinstance(image, str) else image.shape for image in decoded]
    write_text(outcomes_path, json.dumps(outcomes))
