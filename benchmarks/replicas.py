"""Raw folders of any size: a few synthetic patients, written repeatedly under new ids."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import polars as pl

from benchmarks.child import Ended, run_module
from datasets.cohort import select_stays
from datasets.cxr import image_path, link_images
from datasets.events.cleaning import item_map
from datasets.raw.reading import read_table
from datasets.schema import SYNTHETIC_MARKER
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.release import CHEXPERT, CXR, IV, METADATA, NOTICE, write_synthetic
from datasets.synthetic.simulation import Simulation
from utils.machine import available_cpus
from utils.threads import in_order

Mix = Literal["demo", "synthetic"]

CHARTS, LABS, STAYS = f"{IV}/icu/chartevents", f"{IV}/hosp/labevents", f"{IV}/icu/icustays"
TABLES = (
    f"{IV}/hosp/patients", f"{IV}/hosp/admissions", f"{IV}/hosp/diagnoses_icd", STAYS, LABS, CHARTS,
)  # fmt: skip
XRAY_TABLES = (f"{CXR}/{METADATA}", f"{CXR}/{CHEXPERT}")
FIRST_ID = {"subject_id": 10_000_000, "hadm_id": 20_000_000, "stay_id": 30_000_000, "study_id": 50_000_000}
# Source and share of the rows whose item belongs to a variable, counted in the MIMIC-IV demo 2.2 (668,862 and
# 107,727 rows).
READ = {CHARTS: ("chart", 0.16), LABS: ("lab", 0.045)}
OTHER_ITEMS = (300_000, 300_400)  # ids of items that belong to no variable
ROWS_PER_MEMBER = 400_000
DICOM_ID_LENGTH = 44  # characters
GZIP_LEVEL = 1  # compresses 13 bytes of text to one, as in the release's chartevents


@dataclass(frozen=True)
class Pattern:
    """Patients to be written many times."""

    tables: dict[str, pl.DataFrame]  # by path below the raw folder; ids count from 0
    id_counts: dict[str, int]  # by column
    images: list[Path]  # the JPEG of each row of the metadata

    @classmethod
    def draw(cls, folder: Path, patients: int, mix: Mix, image_copies: int = 0) -> Self:
        """Draw synthetic patients in `folder`.

        Args:
            folder: Raw folder to write.
            patients: Number of patients.
            mix: "synthetic" leaves the tables as they are; "demo" adds rows of other items, until the share
                of the items that are read is that of the MIMIC-IV demo.
            image_copies: Copies of each X-ray of 64 pixels; 0 for no X-rays.
        """
        config = SyntheticConfig(folder, patients, image_size=64, images=image_copies > 0, workers=0)
        write_synthetic(config, Simulation())
        names = (*TABLES, *(XRAY_TABLES if image_copies else ()))
        paths = {name: folder / f"{name}.csv.gz" for name in names}
        tables = {name: pl.read_csv(path, infer_schema=False, glob=False) for name, path in paths.items()}
        if mix == "demo":
            tables |= {name: _with_other_items(tables[name], *READ[name]) for name in READ}
        images = []
        if image_copies:
            tables[XRAY_TABLES[0]] = metadata = _repeat_images(tables[XRAY_TABLES[0]], image_copies)
            ids = metadata.select("subject_id", "study_id", pl.col("dicom_id").str.head(DICOM_ID_LENGTH))
            images = [image_path(folder / CXR, int(s), int(t), dicom) for s, t, dicom in ids.iter_rows()]
        id_counts = {}
        for column in FIRST_ID:
            tables, id_counts[column] = _renumber(tables, column)
        return cls(tables, id_counts, images)

    @property
    def rows(self) -> int:
        """The rows of chartevents in one copy."""
        return len(self.tables[CHARTS])

    def write(self, out: Path, copies: int) -> list[Path]:
        """Write `copies` of the patients below `out`, one after the other, and return the tables' paths."""
        for name, table in self.tables.items():
            path = out / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for member in in_order(self._member, self._slices(table, copies), available_cpus()):
                    file.write(member)
        for root in {name.split("/")[0] for name in self.tables}:
            (out / root / SYNTHETIC_MARKER).write_text(NOTICE)
        if self.images:
            self._link_images(out, copies)
        return [out / f"{name}.csv.gz" for name in self.tables]

    @staticmethod
    def _slices(table: pl.DataFrame, copies: int) -> Iterator[tuple[pl.DataFrame, int, bool]]:
        for copy in range(copies):
            for number, part in enumerate(table.iter_slices(ROWS_PER_MEMBER)):
                yield part, copy, copy == 0 and number == 0

    def _member(self, part: tuple[pl.DataFrame, int, bool]) -> bytes:
        """Compress some rows of a copy into a gzip member of their own."""
        rows, copy, header = part
        text = self.shifted(rows, copy).write_csv(include_header=header)
        return gzip.compress(text.encode(), GZIP_LEVEL, mtime=0)

    def shifted(self, rows: pl.DataFrame, copy: int) -> pl.DataFrame:
        """Return rows under the ids of a copy."""
        first_ids = {column: FIRST_ID[column] + copy * count for column, count in self.id_counts.items()}
        renamed = [pl.col(column) + first for column, first in first_ids.items() if column in rows.columns]
        if "dicom_id" in rows.columns:
            renamed.append(pl.format("{}-{}", "dicom_id", pl.lit(copy)).alias("dicom_id"))
        return rows.with_columns(renamed)

    def _link_images(self, out: Path, copies: int) -> None:
        metadata = self.tables[XRAY_TABLES[0]].select("subject_id", "study_id", "dicom_id")
        for copy in range(copies):
            for image, ids in zip(self.images, self.shifted(metadata, copy).iter_rows(), strict=True):
                path = image_path(out / CXR, *ids)
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(image, path)


def _with_other_items(table: pl.DataFrame, source: str, share: float) -> pl.DataFrame:
    """Add rows of other items at existing times, until the share of rows that are read is `share`."""
    wanted = item_map("medmod").filter(pl.col("source") == source)["itemid"].cast(pl.String)
    is_read = table["itemid"].is_in(wanted.implode())
    unread = table.filter(~is_read)
    rng = np.random.default_rng(0)
    count = max(0, int(is_read.sum() / share) - len(table))
    drawn = unread[rng.integers(0, len(unread), count)]
    other = pl.Series(rng.integers(*OTHER_ITEMS, count)).cast(pl.String)
    return pl.concat([table, drawn.with_columns(itemid=other)]).sort("subject_id", "charttime")


def _repeat_images(metadata: pl.DataFrame, times: int) -> pl.DataFrame:
    """Repeat each image under other ids, which begin with the image's."""
    named = [pl.format("{}-{}", "dicom_id", pl.lit(number)) for number in range(times)]
    return pl.concat([metadata.with_columns(dicom_id=name) for name in named])


def _renumber(tables: dict[str, pl.DataFrame], column: str) -> tuple[dict[str, pl.DataFrame], int]:
    """Return the tables with the sorted ids of `column` counted from 0, and the number of ids."""
    with_column = {name: table for name, table in tables.items() if column in table.columns}
    if not with_column:
        return tables, 0
    ids = pl.concat([table[column] for table in with_column.values()]).drop_nulls().unique().sort()
    number = pl.col(column).replace_strict(ids, np.arange(len(ids)), return_dtype=pl.Int64)
    return tables | {name: table.with_columns(number) for name, table in with_column.items()}, len(ids)


def count_linked_images(raw: Path) -> int:
    """Count the images that an extraction will keep: AP, labelled, and within a stay of the cohort."""
    tables = {name: read_table(raw / IV, name) for name in ("icustays", "admissions", "patients")}
    stays = select_stays(**tables, protocol="medmod").stays.with_row_index("stay_row")
    metadata, findings = (read_table(raw / CXR, name) for name in ("metadata", "chexpert"))
    return len(link_images(metadata, findings, stays, ("AP",)))


def write_store(pattern: Pattern, folder: Path, copies: int) -> tuple[Path, Ended]:
    """Extract `copies` of the patients into `folder`/store and return it with the figures of the command.

    The raw folder is removed.
    """
    pattern.write(folder / "raw", copies)
    flags = ["--mimic_iv", folder / "raw" / IV, "--out", folder / "store"]
    if pattern.images:
        flags += ["--mimic_cxr", folder / "raw" / CXR]
    ended = run_module("datasets.extract", *flags)
    shutil.rmtree(folder / "raw")
    return folder / "store", ended
