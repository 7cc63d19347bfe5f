"""Reads a MEDS dataset shard by shard, as the tables of a release of MIMIC-IV."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.events.cleaning import ValueCounts, item_map
from datasets.events.streaming import MISSING, BodySize, StayIndex, clean_rows
from datasets.meds.cohort import Notes, cohort_tables, describe
from datasets.meds.mapping import NEEDED, CodeMapping, Meaning, find_mapping, read_mapping
from datasets.meds.schema import DATA, MEDS_SPLITS, METADATA, SPLITS_FILE, SPLITS_SCHEMA
from datasets.meds.standard import ROWS_PER_BATCH, RowOrder, check_columns, codes_of, explain
from datasets.raw.cells import to_int
from datasets.schema import LabTime
from datasets.splits import SubjectLists
from utils.log import logger

SPLITS_TABLE = "subject_splits"
MEDS_TABLES = (DATA, SPLITS_TABLE)
ID_ROLES = {
    "hadm_id": ("an admission", "hospital_admission", "hospital_discharge"),
    "stay_id": ("an ICU stay", "icu_admission", "icu_discharge"),
}
RECORD_SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    "subject_id": pl.Int64, "time": pl.Datetime("us"), "role": pl.String, "value": pl.String,
    "version": pl.Int64, "hadm_id": pl.Int64, "stay_id": pl.Int64, "race": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class MEDSDataset:
    """A dataset of the standard, read as a release of MIMIC-IV by a mapping of its codes.

    Without the file of a mapping it is a shipped one, by a look at the codes.
    """

    root: Path
    mapping_file: Path | None = None
    _meanings: dict[str, Meaning] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def shards(self) -> list[Path]:
        """Return the files of the data; hidden ones are left out, as by other readers of Parquet.

        Raises:
            ValueError: There are none.
        """
        folder = self.root / DATA
        found = (path.relative_to(folder) for path in folder.rglob("*.parquet"))
        files = sorted(folder / path for path in found if not any(n.startswith(".") for n in path.parts))
        if not files:
            raise ValueError(f"{self.root}: no {DATA}/**/*.parquet; give the folder of a MEDS dataset")
        return files

    @cached_property
    def mapping(self) -> CodeMapping:
        """Return the mapping of the codes.

        Raises:
            ValueError: It is not valid, or no shipped mapping fits.
        """
        if self.mapping_file is not None:
            return read_mapping(self.mapping_file)
        return find_mapping(map(codes_of, self.shards))

    @property
    def lab_time(self) -> LabTime:
        """Return the time of a laboratory value, which the mapping knows."""
        return self.mapping.lab_time

    def files(self) -> dict[str, list[Path]]:
        """Return the shards, and the file of the splits where there is one."""
        splits = self.root / METADATA / SPLITS_FILE
        return self.event_files() | ({SPLITS_TABLE: [splits]} if splits.is_file() else {})

    def event_files(self) -> dict[str, list[Path]]:
        """Return the shards."""
        return {DATA: self.shards}

    def check(self) -> None:
        """Check the columns of each shard; ValueError if they are not those of the standard."""
        for path in self.shards:
            check_columns(path)

    def table(self, name: str) -> pl.DataFrame:
        """Return icustays, admissions, patients or diagnoses_icd."""
        return self.tables[name]

    def has(self, name: str) -> bool:
        """Return whether every shard has the column that the mapping names hadm_id, stay_id or race."""
        return name in self._columns

    @cached_property
    def _columns(self) -> dict[str, str]:
        """Return the columns beside the standard's that every shard has."""
        common = set.intersection(*(set(pq.read_schema(path).names) for path in self.shards))
        return {name: column for name, column in self.mapping.columns.items() if column in common}

    @cached_property
    def tables(self) -> dict[str, pl.DataFrame]:
        """Return icustays, admissions, patients and diagnoses_icd, with the columns of the release.

        Raises:
            ValueError: The rows break the standard, or no code has a role that the cohort needs.
        """
        records = self._records()
        for role in NEEDED:
            if not (records["role"] == role).any():
                raise ValueError(
                    f"{self.root}: no code matches {role} ({self.mapping.codes[role]}) of the mapping "
                    f"{self.mapping.name}; give one that fits as --meds_mapping"
                )
        self._check_ids(records)
        return cohort_tables(records, self.has("hadm_id"), self.has("stay_id"))

    def _check_ids(self, records: pl.DataFrame) -> None:
        """Check that the columns of ids have some where they say what belongs together."""
        for name, (place, start, end) in ID_ROLES.items():
            for role in (start, end):
                ids = records.filter(pl.col("role") == role)[name]
                if self.has(name) and ids.null_count() == len(ids):
                    column = self._columns[name]
                    raise ValueError(
                        f"{self.root}: column {column} is no integer in any row of {role}; leave {name} out "
                        "of the columns of the mapping (--meds_mapping), so that times say what belongs to "
                        f"{place}"
                    )

    def known_items(self) -> dict[str, frozenset[int]]:
        """Return nothing: codes take the place of items."""
        return {}

    def subject_lists(self) -> SubjectLists:
        """Return the subjects of the splits held_out and tuning.

        Raises:
            ValueError: The splits are missing, or not one of the standard's for each subject.
        """
        path = self.root / METADATA / SPLITS_FILE
        cure = "write it as the standard asks, or give --test_subjects and --val_subjects"
        if not path.is_file():
            raise ValueError(f"{path} is missing; {cure}")
        with explain(path):
            read = pq.read_table(path, columns=SPLITS_SCHEMA.names, partitioning=None)
            table = pl.from_arrow(
                read.cast(pa.schema([field.with_nullable(True) for field in SPLITS_SCHEMA]))
            )
        assert isinstance(table, pl.DataFrame)
        if any(series.has_nulls() for series in table):
            raise ValueError(f"{path}: a row has no subject or no split; {cure}")
        if unknown := sorted({*table["split"]} - {*MEDS_SPLITS.values()}):
            raise ValueError(f"{path}: {unknown[0]} is none of {', '.join(MEDS_SPLITS.values())}; {cure}")
        if table["subject_id"].is_duplicated().any():
            raise ValueError(f"{path}: a subject is in several rows; {cure}")
        missing = self.tables["patients"].join(table, on="subject_id", how="anti")
        if len(missing):
            raise ValueError(f"{path}: {len(missing)} subjects of the data have no split; {cure}")
        held_out, tuning = (table.filter(pl.col("split") == MEDS_SPLITS[name]) for name in ("test", "val"))
        return frozenset(held_out["subject_id"]), frozenset(tuning["subject_id"])

    def notes(self, stays: pl.DataFrame) -> Notes:
        """Return what the manifest says of the dataset, given the cohort."""
        diagnoses = self.tables["diagnoses_icd"].join(stays, on="hadm_id", how="semi")
        has_ids = self.has("hadm_id"), self.has("stay_id")
        return describe(stays, len(diagnoses), self.mapping.name, self.lab_time, *has_ids)

    def observations(
        self,
        table: str,
        stays: pl.DataFrame,
        protocol: str,
        counts: ValueCounts,
        on_row: Callable[[int], object],
        sizes: BodySize,
    ) -> Iterator[np.ndarray]:
        """Yield batches of cleaned observations as `stream_observations` does.

        Without hadm_id, a row belongs to the stay of its subject in whose admission its time lies.

        Args:
            table: `data`, the only one.
            stays: Cohort with stay_row, subject_id, hadm_id, stay_id, intime, outtime, los_hours, admittime
                and dischtime.
            protocol: `medmod` or `corrected`.
            counts: Values, and the implausible and redacted ones, are added to it.
            on_row: Called with the number of rows that were read, for a progress bar.
            sizes: Heights and weights are added to it.

        Raises:
            ValueError: No observation lies in a stay.
        """
        index, admissions = StayIndex.of(stays), AdmissionTimes.of(stays)
        wanted, row = set(item_map(protocol)["itemid"]), 0
        placed = without_id = 0
        for path in self.shards:
            with explain(path):
                for batch in self._batches(path, ["hadm_id", "stay_id"], ["numeric_value", "text_value"]):
                    rows = self._observed(batch, wanted, admissions)
                    without_id += int(rows["without_id"].sum())
                    found = clean_rows(rows, index, protocol).add_to(counts, sizes)
                    placed += len(found)
                    yield found
                    row += len(batch)
                    on_row(row)
        self._report_places(placed, without_id)

    def _report_places(self, placed: int, without_id: int) -> None:
        """Say how many observations are left out for want of a hadm_id; ValueError if none is left."""
        name = self.mapping.name
        fault = f"{without_id} observations during admissions of the cohort have no hadm_id, and are left out"
        cure = "leave hadm_id out of the columns of the mapping (--meds_mapping) to place them by their times"
        if not placed:
            cause = fault if without_id else f"the mapping {name} finds no value of a variable there"
            cure = cure if without_id else "give one that fits as --meds_mapping"
            raise ValueError(f"{self.root}: no observation lies in a stay: {cause}; {cure}")
        if without_id:
            logger.warning(f"{self.root}: {fault}; {cure}")

    def _observed(
        self, batch: pa.RecordBatch, wanted: set[int], admissions: "AdmissionTimes"
    ) -> pl.DataFrame:
        """Return the observations of some items with the columns of the raw event tables.

        `without_id` says which have no hadm_id in its column, but a time in an admission.
        """
        meanings, code = self._meanings_of(batch)
        readings = self.mapping.readings
        reading = np.array([m.reading if readings[m.reading].item in wanted else -1 for m in meanings], int)
        selected = np.flatnonzero(reading[code] >= 0)
        batch, reading = batch.take(selected), reading[code[selected]]
        number = _column(batch, "numeric_value").cast(pl.Float32).fill_nan(None)
        text, hadm_id = _column(batch, "text_value").cast(pl.String), self._ids(batch, "hadm_id")
        subject_id, time = _column(batch, "subject_id"), _column(batch, "time")
        unnamed, by_time = np.flatnonzero(hadm_id.is_null()), np.full(len(batch), MISSING)
        by_time[unnamed] = admissions.hadm_id_of(subject_id[unnamed], time[unnamed])
        if not self.has("hadm_id"):
            hadm_id = pl.Series(by_time)
        columns = {
            "row": selected,
            "hadm_id": hadm_id.fill_null(MISSING),
            "stay_id": self._ids(batch, "stay_id").fill_null(MISSING),
            "charttime": time,
            "itemid": np.array([r.item for r in readings], np.int64)[reading],
            "number": number,
            "text": pl.when(text.str.strip_chars() != "").then(text),
            "reading": reading,
            "without_id": (by_time != MISSING) & self.has("hadm_id"),
        }
        return _read_as_charted(pl.select(**columns), self.mapping)

    def _records(self) -> pl.DataFrame:
        """Return the rows whose code has a role in the cohort, and check the order of all rows."""
        order, parts = RowOrder(), [pl.DataFrame(schema=RECORD_SCHEMA)]
        for path in self.shards:
            order.start(path)
            with explain(path):
                for batch in self._batches(path, ["hadm_id", "stay_id", "race"]):
                    order.check(batch)
                    meanings, code = self._meanings_of(batch)
                    rows = np.flatnonzero(np.array([bool(m.role) for m in meanings], bool)[code])
                    parts.append(self._record_frame(batch.take(rows), [meanings[k] for k in code[rows]]))
        order.check_subjects()
        return pl.concat(parts)

    def _record_frame(self, batch: pa.RecordBatch, meanings: list[Meaning]) -> pl.DataFrame:
        race = self._columns.get("race")
        columns = {
            "subject_id": _column(batch, "subject_id"),
            "time": _column(batch, "time"),
            **{name: [getattr(m, name) for m in meanings] for name in ("role", "value", "version")},
            **{name: self._ids(batch, name) for name in ("hadm_id", "stay_id")},
            "race": _column(batch, race) if race else None,
        }
        return pl.DataFrame(columns, RECORD_SCHEMA)

    def _ids(self, batch: pa.RecordBatch, name: str) -> pl.Series:
        """Return hadm_id or stay_id as Int64, null where the dataset has none."""
        ids = _column(batch, self._columns.get(name, ""))
        if ids.dtype == pl.String:
            return ids.to_frame("id").select(to_int(pl.col("id"))).to_series()
        return ids.cast(pl.Int64, strict=False)

    def _meanings_of(self, batch: pa.RecordBatch) -> tuple[list[Meaning], np.ndarray]:
        """Return the meanings of the batch's different codes, and the index of each row's code."""
        codes = batch.column("code")
        names = codes.dictionary.to_pylist()
        for name in names:
            if name not in self._meanings:
                self._meanings[name] = self.mapping.meaning(name)
        return [self._meanings[name] for name in names], codes.indices.to_numpy(zero_copy_only=False)

    def _batches(
        self, path: Path, further: Sequence[str], values: Sequence[str] = ()
    ) -> Iterator[pa.RecordBatch]:
        """Yield some rows at a time: the columns of the standard that are read, and further ones."""
        names = ["subject_id", "time", "code", *(self._columns[n] for n in further if self.has(n))]
        with pq.ParquetFile(path, read_dictionary=["code"]) as file:
            names += [name for name in values if name in file.schema_arrow.names]
            yield from file.iter_batches(ROWS_PER_BATCH, columns=names)


def _column(batch: pa.RecordBatch, name: str) -> pl.Series:
    """Return a column of a batch, or nulls if there is none."""
    if name not in batch.schema.names:
        return pl.Series(name, [None] * len(batch), pl.Null)
    series = pl.from_arrow(batch.column(name))
    assert isinstance(series, pl.Series)
    return series


def _read_as_charted(rows: pl.DataFrame, mapping: CodeMapping) -> pl.DataFrame:
    """Add value and valuenum as the release charts them: the text, or else the number as text.

    The shortest text of a float32 is that of the number from which it was made, up to six digits.
    """
    own = {index: reading for index, reading in enumerate(mapping.readings) if reading.code}
    for index, reading in own.items():
        changed = (pl.col("number").cast(pl.Float64) * reading.factor + reading.offset).cast(pl.Float32)
        rows = rows.with_columns(number=pl.when(pl.col("reading") == index).then(changed).otherwise("number"))
    number = pl.col("number").cast(pl.String).str.strip_suffix(".0")
    rows = rows.with_columns(value=pl.coalesce("text", number), valuenum=number)
    for index, reading in own.items():
        text = (
            pl.when(pl.col("reading") == index)
            .then(pl.col("value").replace(reading.texts))
            .otherwise("value")
        )
        rows = rows.with_columns(value=text)
    return rows.filter(pl.col("value").is_not_null())


@dataclass(frozen=True)
class AdmissionTimes:
    """When the admission of each stay of the cohort begins and ends, by subject and time: [stays] each."""

    subjects: np.ndarray
    key: np.ndarray
    end: np.ndarray
    hadm_id: np.ndarray

    @classmethod
    def of(cls, stays: pl.DataFrame) -> Self:
        """Take the admissions of a cohort; a stay may begin before its admission, and end after it."""
        start, end = pl.min_horizontal("admittime", "intime"), pl.max_horizontal("dischtime", "outtime")
        table = stays.select("subject_id", "hadm_id", start=start.dt.epoch("s"), end=end.dt.epoch("s"))
        table = table.sort("subject_id", "start")
        subjects = np.unique(table["subject_id"].to_numpy())
        key = _moments(subjects, table["subject_id"].to_numpy(), table["start"].to_numpy())
        ends = _moments(subjects, table["subject_id"].to_numpy(), table["end"].to_numpy())
        return cls(subjects, key, ends, table["hadm_id"].to_numpy())

    def hadm_id_of(self, subject_id: pl.Series, time: pl.Series) -> np.ndarray:
        """Return the admission in which rows [n] lie, MISSING for none."""
        subject, second = subject_id.to_numpy(), time.dt.epoch("s").fill_null(MISSING).to_numpy()
        is_known = np.isin(subject, self.subjects) & (second > MISSING)
        moment = _moments(self.subjects, subject, np.where(is_known, second, 0))
        place = np.maximum(np.searchsorted(self.key, moment, side="right") - 1, 0)
        inside = is_known & (moment >= self.key[place]) & (moment <= self.end[place])
        return np.where(inside, self.hadm_id[place], MISSING)


def _moments(subjects: np.ndarray, subject_id: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return integers that are in the order of subject and second, as far as the subjects are known."""
    moments: np.ndarray = (np.searchsorted(subjects, subject_id) << 40) + (second + (1 << 39))
    return moments
