"""Tables as other tools export them: they read as the release's own, or the error names the line."""

import csv
import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datasets.events.cleaning import ValueCounts
from datasets.events.streaming import stream_observations
from datasets.raw.reading import read_table
from datasets.raw.tables import TABLES, find_files
from tests.random_cohort import random_cohort
from tests.raw_tables import INTIME, admission, chart, patient, stay, write_mimic_iv

SMALL = ("patients", "admissions", "icustays", "diagnoses_icd", "metadata", "chexpert")
Cells = list[list[str]]
Contents = dict[str, pl.DataFrame | bytes]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random cohort whose folder holds the tables of both releases."""
    folder = tmp_path_factory.mktemp("release")
    made = random_cohort(2, 4)
    made.write(folder)
    for path in (folder / "cxr").glob("*.csv.gz"):
        path.rename(folder / "iv" / path.name)
    return folder / "iv"


@pytest.fixture(scope="module")
def right(release: Path) -> Contents:
    return contents(release)


def contents(root: Path) -> Contents:
    """Return the small tables of a release, and the observations in its stays as bytes."""
    tables: Contents = {name: read_table(root, name) for name in SMALL}
    stays = pl.DataFrame(tables["icustays"]).with_row_index("stay_row")
    stays = stays.with_columns(pl.col("stay_row").cast(pl.Int32), los_hours=24 * pl.col("los"))
    for name in ("chartevents", "labevents"):
        found = list(stream_observations(root, name, stays, "corrected", ValueCounts()))
        assert sum(map(len, found)) > 5
        tables[name] = np.concatenate(found).tobytes()
    return tables


def check_same(root: Path, right: Contents) -> None:
    for name, table in contents(root).items():
        assert table.equals(right[name]) if isinstance(table, pl.DataFrame) else table == right[name], name


def rewrite(release: Path, root: Path, change: Callable[[str, Cells], Cells]) -> Path:
    """Write each table of a release into `root`, its cells [rows, columns] and header changed."""
    for name in TABLES:
        (path,) = find_files(release, name)
        with gzip.open(path, "rt", newline="") as file:
            cells = change(name, list(csv.reader(file)))
        copy = root / path.relative_to(release)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(copy, "wt", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(cells)
    return root


def cells_of(dtype: type[pl.DataType], change: Callable[[str], str]) -> Callable[[str, Cells], Cells]:
    """Return the change of the cells that are not empty in the columns of a type."""

    def changed(name: str, cells: Cells) -> Cells:
        header, *rows = cells
        wanted = [TABLES[name].columns.get(column) is dtype for column in header]
        pairs = ([(c, w) for c, w in zip(row, wanted, strict=True)] for row in rows)
        return [header, *([change(c) if w and c else c for c, w in row] for row in pairs)]

    return changed


def missing_as(text: str, name: str, cells: Cells) -> Cells:
    header, *rows = cells
    return [header, *([c or text for c in row] for row in rows)]


def in_capitals(name: str, cells: Cells) -> Cells:
    return [[f" {column.upper()} " for column in cells[0]], *cells[1:]]


def floats_from_the_middle(name: str, cells: Cells) -> Cells:
    changed = cells_of(pl.Int64, lambda cell: f"{cell}.0")(name, cells)
    return [*cells[: len(cells) // 2], *changed[len(cells) // 2 :]]


def times(form: str) -> Callable[[str, Cells], Cells]:
    return cells_of(pl.Datetime, lambda cell: form.format(*cell.split(" ")))


EXPORTS = {
    "T": times("{}T{}"),
    "T and Z": times("{}T{}Z"),
    "fraction": times("{} {}.000"),
    "nanoseconds and offset": times("{}T{}.000000000+00:00"),
    "offset": times("{} {}+00:00"),
    "offset of PostgreSQL": times("{} {}+00"),
    "UTC": times("{} {} UTC"),
    "float ids": cells_of(pl.Int64, lambda cell: f"{cell}.0"),
    "float ids from the middle": floats_from_the_middle,
    "ids of R": cells_of(pl.Int64, lambda cell: f"{int(cell):.12e}"),
    "blanks around ids": cells_of(pl.Int64, lambda cell: f" {cell} "),
    "blanks around numbers": cells_of(pl.Float64, lambda cell: f" {cell} "),
    "capitals": in_capitals,
    **{
        f"missing {text}": partial(missing_as, text)
        for text in ("NULL", "null", "\\N", "NaT", "NaN", "NA", "<NA>", "None", "(null)", ".")
    },
}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_table_exported_by_another_tool_reads_the_same(
    release: Path, right: Contents, tmp_path: Path, name: str
) -> None:
    check_same(rewrite(release, tmp_path, EXPORTS[name]), right)


LAYOUTS = (
    "{table}-{n:04d}.csv.gz", "{table}_{m}.csv", "{table}{n:012d}.csv", "{table}.part{n}.csv.gz",
    "{table}/part-{n:05d}-0f.csv", "{table}.csv.gz/{n}.csv.gz", "{table}-{n:05d}-of-00003.parquet",
    "{table}.parquet/part-{n:05d}-0f.c000.snappy.parquet", "{table}/data_{n}.parquet",
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shards_and_parquet_read_the_same(
    release: Path, right: Contents, tmp_path: Path, layout: str
) -> None:
    for name in TABLES:
        (path,) = find_files(release, name)
        raw = pl.read_csv(path, infer_schema=False, glob=False)
        if layout.endswith("parquet"):
            types = TABLES[name].columns
            raw = raw.with_columns(typed(column, types[column]) for column in raw.columns if column in types)
        for n in range(3):
            part = raw[n * len(raw) // 3 : (n + 1) * len(raw) // 3]
            table = path.name.removesuffix(".csv.gz")
            shard = tmp_path / path.parent.relative_to(release) / layout.format(table=table, n=n, m=n + 1)
            shard.parent.mkdir(parents=True, exist_ok=True)
            if layout.endswith("parquet"):
                part.write_parquet(shard)
            else:
                content = part.write_csv().encode()
                shard.write_bytes(gzip.compress(content) if shard.suffix == ".gz" else content)
    check_same(tmp_path, right)


def typed(column: str, dtype: type[pl.DataType]) -> pl.Expr:
    """Return a column as pandas types it: ids that may be missing as floats, texts as categories."""
    cells = pl.col(column)
    if dtype is pl.Datetime:
        return cells.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ns", time_zone="UTC")
    if column in ("value", "valuenum"):
        return cells
    kinds = {pl.Int64: pl.Float64, pl.Float64: pl.Float64, pl.String: pl.Categorical}
    return cells.cast(pl.Int32) if column == "itemid" else cells.cast(kinds[dtype])


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("patients-0000.csv", "patients-0002.csv"), "number 1 is missing"),
        (("patients-3.csv", "patients-4.csv"), "number 1 is missing"),
        (("patients-0-of-3.csv", "patients-1-of-3.csv"), "number 2 is missing"),
        (("patients_1.csv", "patients_01.csv"), "number 1 is there twice"),
        (("patients.csv", "patients-0.csv"), "table patients has 2 files"),
        (("patients-0.csv", "patients-0.parquet"), "table patients has 2 files"),
    ],
)
def test_shards_that_are_no_whole_table_are_refused(
    tmp_path: Path, names: tuple[str, ...], fault: str
) -> None:
    (tmp_path / "hosp").mkdir()
    for name in names:
        (tmp_path / "hosp" / name).touch()
    with pytest.raises(ValueError, match=fault):
        find_files(tmp_path, "patients")


def test_partitions_that_spark_left_out_as_empty_are_not_missing(tmp_path: Path) -> None:
    folder = tmp_path / "hosp/patients"
    folder.mkdir(parents=True)
    for name in ("_SUCCESS", "part-00000-a.csv", "part-00003-a.csv", ".part-00000-a.csv.crc"):
        (folder / name).touch()
    assert [path.name for path in find_files(tmp_path, "patients")] == [
        "part-00000-a.csv",
        "part-00003-a.csv",
    ]


NO_TIMES = (
    "2150-01-01 14:05:60", "50-01-01 14:05:00", "0050-01-01 14:05:00", "+150-01-01 14:05:00",
    "2150-01-01 24:00:00", "2150-02-30 14:05:00", "2150-01-01T14:05:00+05:00", "01/02/2150 14:05",
    "2150-01-01 14:05:00,5", "2150-01-01 14:05: 5", "5678925900",
)  # fmt: skip


@pytest.mark.parametrize("time", NO_TIMES)
def test_a_time_that_is_none_is_refused_with_its_line_in_every_table(tmp_path: Path, time: str) -> None:
    tables = {
        "icustays": [stay(), stay(2, 22, 222, intime=time)],
        "admissions": [admission(), admission(2, 22, deathtime=time)],
        "patients": [patient(), patient(2, dod=time)],
        "chartevents": [chart(1, 80, time), chart(220045, 80, time, hadm_id=12), chart(220045, 80, time)],
        "labevents": [chart(50931, 80), chart(50931, 80, time)],
    }  # fmt: skip
    for name, rows in tables.items():
        root = write_mimic_iv(tmp_path / name, **{name: rows})
        with pytest.raises(ValueError, match=rf"{name}\.csv\.gz: .* line {len(rows) + 1}: \w+ is not a time"):
            read_events(root, name) if name.endswith("events") else read_table(root, name)


def read_events(root: Path, name: str) -> list[np.ndarray]:
    """Return the observations in the stay of `raw_tables`."""
    table = {"stay_row": [0], "hadm_id": [11], "stay_id": [111], "intime": [INTIME], "los_hours": [72.0]}
    stays = pl.DataFrame(table).with_columns(
        pl.col("intime").str.to_datetime(time_unit="us"), pl.col("stay_row").cast(pl.Int32)
    )
    return list(stream_observations(root, name, stays, "medmod", ValueCounts()))


@pytest.mark.parametrize("name", ["patients", "chartevents"])
@pytest.mark.parametrize("cell", ["12a", "12.5", "9223372036854775808", "1e400", "0x1F"])
def test_the_line_of_an_id_that_is_none_is_named_and_not_one_that_reads_well(
    tmp_path: Path, name: str, cell: str
) -> None:
    column, row = ("anchor_age", patient()) if name == "patients" else ("hadm_id", chart(220045, 80))
    rows = [row | {column: " 60"}, row | {column: "60.0"}, row | {column: "NULL"}, row | {column: cell}, row]
    root = write_mimic_iv(tmp_path, **{name: rows})
    with pytest.raises(ValueError, match=rf"{name}\.csv\.gz: .* line 5: {column} is not a 64-bit integer"):
        read_table(root, name) if name == "patients" else read_events(root, name)


def test_a_line_is_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "hosp/patients.csv"
    path.parent.mkdir()
    path.write_text(
        'subject_id,gender,anchor_age,anchor_year,dod,note\n1,F,60,2150,,"two\nlines"\n\n2,F,x,2150,,\n'
    )
    with pytest.raises(ValueError, match="line 5: anchor_age is not a 64-bit integer"):
        read_table(tmp_path, "patients")


PARIS = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("times", "fault"),
    [
        ([datetime(2150, 1, 1), datetime(50, 1, 1)], "row 2: dod is not a time"),
        ([datetime(2150, 1, 1, tzinfo=PARIS)] * 2, "row 1: dod has the time zone Etc/GMT-1"),
        ([datetime(2150, 1, 1, tzinfo=UTC)] * 2, ""),
    ],
)
def test_times_of_parquet_have_no_zone_and_are_of_this_age(
    tmp_path: Path, times: list[datetime], fault: str
) -> None:
    (tmp_path / "hosp").mkdir()
    zone = pl.Datetime("us", {None: None, PARIS: "Etc/GMT-1", UTC: "UTC"}[times[0].tzinfo])
    plain = [time.replace(tzinfo=None) for time in times]
    dod = pl.Series(plain, dtype=pl.Datetime("us")).dt.replace_time_zone(zone.time_zone)
    ids = {"subject_id": [1, 2], "gender": ["F", "M"], "anchor_age": [60, 61], "anchor_year": [2150, 2150]}
    pl.DataFrame(ids).with_columns(dod=dod).write_parquet(tmp_path / "hosp/patients.parquet")
    if fault:
        with pytest.raises(ValueError, match=rf"patients\.parquet: .*{fault}"):
            read_table(tmp_path, "patients")
    else:
        assert read_table(tmp_path, "patients")["dod"].to_list() == plain


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n"])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hosp").mkdir()
    (tmp_path / "hosp/patients.parquet").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"patients\.parquet: not a readable Parquet file; download it again"
    ):
        read_table(tmp_path, "patients")
