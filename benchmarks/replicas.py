"""Raw folders of any size: a few synthetic patients, written again and again under other ids."""

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
from datasets.synthetic.patients import Strengths
from datasets.synthetic.release import (
    CHEXPERT,
    CXR,
    IV,
    METADATA,
    SENTENCE,
    SyntheticConfig,
    write_synthetic,
)
from utils.threads import in_order

Mix = Literal["demo", "synthetic"]

CHARTS, LABS, STAYS = f"{IV}/icu/chartevents", f"{IV}/hosp/labevents", f"{IV}/icu/icustays"
TABLES = (
    f"{IV}/hosp/patients", f"{IV}/hosp/admissions", f"{IV}/hosp/diagnoses_icd", STAYS, LABS, CHARTS,
)  # fmt: skip
FILM_TABLES = (f"{CXR}/{METADATA}", f"{CXR}/{CHEXPERT}")
FIRST_ID = {"subject_id": 10_000_000, "hadm_id": 20_000_000, "stay_id": 30_000_000, "study_id": 50_000_000}
# Of all rows, those of an item that a variable has: counted in the MIMIC-IV demo 2.2 (668,862 and 107,727
# rows).
READ = {CHARTS: ("chart", 0.16), LABS: ("lab", 0.045)}
OTHER_ITEMS = (300_000, 300_400)  # ids that no variable has
ROWS_PER_MEMBER = 400_000
LEVEL = 1  # of gzip: 13 bytes of text to one, as the release's chartevents


@dataclass(frozen=True)
class Pattern:
    """Patients to be written many times. `tables`: by name below the raw folder, ids counted from 0;
    `ids`: how many of each there are; `films`: for each row of the metadata where its JPEG lies.
    """

    tables: dict[str, pl.DataFrame]
    ids: dict[str, int]
    films: list[Path]

    @classmethod
    def draw(cls, folder: Path, patients: int, mix: Mix, films_per_study: int = 0) -> Self:
        """Draw synthetic patients below `folder`.

        mix: "synthetic" leaves the tables as they are; "demo" adds rows of other items until the items that
        are read have their share of the MIMIC-IV demo. films_per_study: copies of each X-ray of 64 pixels;
        0 for none.
        """
        config = SyntheticConfig(folder, patients, image_size=64, images=films_per_study > 0, workers=0)
        write_synthetic(config, Strengths())
        names = (*TABLES, *(FILM_TABLES if films_per_study else ()))
        tables = {name: pl.read_csv(folder / f"{name}.csv.gz", infer_schema=False) for name in names}
        if mix == "demo":
            tables |= {name: _with_other_items(tables[name], *READ[name]) for name in READ}
        films = []
        if films_per_study:
            tables[FILM_TABLES[0]] = metadata = _repeated(tables[FILM_TABLES[0]], films_per_study)
            places = metadata.select("subject_id", "study_id", pl.col("dicom_id").str.head(44)).iter_rows()
            films = [image_path(folder / CXR, int(s), int(t), dicom) for s, t, dicom in places]
        ids = {}
        for column in FIRST_ID:
            tables, ids[column] = _renumbered(tables, column)
        return cls(tables, ids, films)

    @property
    def rows(self) -> int:
        """Rows of chartevents of one copy."""
        return len(self.tables[CHARTS])

    def write(self, out: Path, copies: int) -> list[Path]:
        """Write `copies` of the patients below `out`, one after the other; the event tables written."""
        for name, table in self.tables.items():
            path = out / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for member in in_order(self._member, self._parts(table, copies), os.cpu_count() or 1):
                    file.write(member)
        for root in {name.split("/")[0] for name in self.tables}:
            (out / root / SYNTHETIC_MARKER).write_text(SENTENCE)
        if self.films:
            self._link_films(out, copies)
        return [out / f"{name}.csv.gz" for name in self.tables]

    @staticmethod
    def _parts(table: pl.DataFrame, copies: int) -> Iterator[tuple[pl.DataFrame, int, bool]]:
        for copy in range(copies):
            for number, part in enumerate(table.iter_slices(ROWS_PER_MEMBER)):
                yield part, copy, copy == 0 and number == 0

    def _member(self, part: tuple[pl.DataFrame, int, bool]) -> bytes:
        """Some rows of a copy as a gzip member of their own."""
        rows, copy, header = part
        text = self._shifted(rows, copy).write_csv(include_header=header)
        return gzip.compress(text.encode(), LEVEL, mtime=0)

    def _shifted(self, rows: pl.DataFrame, copy: int) -> pl.DataFrame:
        ids = {column: FIRST_ID[column] + copy * count for column, count in self.ids.items()}
        renamed = [pl.col(column) + first for column, first in ids.items() if column in rows.columns]
        if "dicom_id" in rows.columns:
            renamed.append(pl.format("{}-{}", "dicom_id", pl.lit(copy)).alias("dicom_id"))
        return rows.with_columns(renamed)

    def _link_films(self, out: Path, copies: int) -> None:
        metadata = self.tables[FILM_TABLES[0]].select("subject_id", "study_id", "dicom_id")
        for copy in range(copies):
            for film, place in zip(self.films, self._shifted(metadata, copy).iter_rows(), strict=True):
                path = image_path(out / CXR, *place)
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(film, path)


def _with_other_items(table: pl.DataFrame, source: str, share: float) -> pl.DataFrame:
    """Add rows of other items, at the moments of those there are, until the read ones are a `share`."""
    wanted = item_map("medmod").filter(pl.col("source") == source)["itemid"].cast(pl.String)
    read = table["itemid"].is_in(wanted.implode())
    unread = table.filter(~read)
    rng = np.random.default_rng(0)
    count = max(0, int(read.sum() / share) - len(table))
    drawn = unread[rng.integers(0, len(unread), count)]
    other = pl.Series(rng.integers(*OTHER_ITEMS, count)).cast(pl.String)
    return pl.concat([table, drawn.with_columns(itemid=other)]).sort("subject_id", "charttime")


def _repeated(metadata: pl.DataFrame, times: int) -> pl.DataFrame:
    """Each image `times` times, under other ids; the first 44 characters stay."""
    named = [pl.format("{}-{}", "dicom_id", pl.lit(number)) for number in range(times)]
    return pl.concat([metadata.with_columns(dicom_id=name) for name in named])


def _renumbered(tables: dict[str, pl.DataFrame], column: str) -> tuple[dict[str, pl.DataFrame], int]:
    """The tables with the ids of `column` counted from 0 in their order, and how many there are."""
    having = {name: table for name, table in tables.items() if column in table.columns}
    if not having:
        return tables, 0
    ids = pl.concat([table[column] for table in having.values()]).drop_nulls().unique().sort()
    number = pl.col(column).replace_strict(ids, np.arange(len(ids)), return_dtype=pl.Int64)
    return tables | {name: table.with_columns(number) for name, table in having.items()}, len(ids)


def films_in_stays(raw: Path) -> int:
    """X-rays of a raw folder that an extraction will keep: AP, read, and within a stay of the cohort."""
    tables = {name: read_table(raw / IV, name) for name in ("icustays", "admissions", "patients")}
    stays = select_stays(**tables, protocol="medmod").stays.with_row_index("stay_row")
    metadata, findings = (read_table(raw / CXR, name) for name in ("metadata", "chexpert"))
    return len(link_images(metadata, findings, stays, ("AP",)))


def write_store(pattern: Pattern, folder: Path, copies: int) -> tuple[Path, Ended]:
    """Extract `copies` of the patients into `folder`/store, and how that went; the raw folder is removed."""
    pattern.write(folder / "raw", copies)
    flags = ["--mimic_iv", folder / "raw" / IV, "--out", folder / "store"]
    if pattern.films:
        flags += ["--mimic_cxr", folder / "raw" / CXR]
    ended = run_module("datasets.extract", *flags)
    shutil.rmtree(folder / "raw")
    return folder / "store", ended
