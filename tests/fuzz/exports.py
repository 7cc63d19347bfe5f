"""Tables and X-rays as other tools leave them: read as the release's own, or refused with the guilty line."""

import gzip
import io
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from datasets.raw.tables import TABLES
from tests.fuzz.cases import Failure, Fault, Workspace, check_result, clear_error, pick
from tests.fuzz.images import cohort as pictures
from tests.fuzz.images import store_without
from tests.fuzz.tables import (
    ALL,
    COHORTS,
    EVENTS,
    PLANTED,
    Table,
    clean_cohort,
    contents,
    extract,
    path_of,
    put,
    read_clean,
    right_result,
    some_row,
)

Change = Callable[[np.random.Generator, Table], Table]
MISSING = ("NULL", "null", "\\N", "NaT", "NaN", "nan", "NA", "<NA>", "None", "(null)", "N/A", ".")
OFFSETS = ("", "Z", "z", "+00:00", "+0000", "+00", " UTC", "-00:00")
FRACTIONS = ("", ".0", ".000", ".000000", ".0000000", ".000000000")


def changed_cells(table: Table, kinds: tuple[type[pl.DataType], ...], change: Callable[[str], str]) -> Table:
    """The table with other text in the cells of some types that are not empty."""
    wanted = [TABLES[table.name].columns.get(column) in kinds for column in table.header]
    rows = (
        tuple(change(c) if w and c else c for c, w in zip(row, wanted, strict=True)) for row in table.rows
    )
    return Table(table.name, table.header, tuple(rows))


def times(draw: np.random.Generator, table: Table) -> Table:
    def change(cell: str) -> str:
        day, clock = (*cell.split(" "), "00:00:00")[:2]
        return f"{day}{pick(draw, 'Tt ')}{clock}{pick(draw, FRACTIONS)}{pick(draw, OFFSETS)}"

    return changed_cells(table, (pl.Datetime,), change)


def float_ids(draw: np.random.Generator, table: Table) -> Table:
    forms = ("{}.0", "{}.000", "{}.", "{}", " {}", "{} ", "+{}")
    return changed_cells(table, (pl.Int64,), lambda cell: pick(draw, forms).format(cell))


def exponents(draw: np.random.Generator, table: Table) -> Table:
    form = pick(draw, ("{:.15e}", "{:.15E}"))
    return changed_cells(table, (pl.Int64,), lambda cell: form.format(int(cell)))


def missing_values(draw: np.random.Generator, table: Table) -> Table:
    text = pick(draw, MISSING)
    rows = tuple(tuple(cell or text for cell in row) for row in table.rows)
    return Table(table.name, table.header, rows)


def capitals(draw: np.random.Generator, table: Table) -> Table:
    form = pick(draw, (str.upper, str.title, str.swapcase, " {} ".format))
    return Table(table.name, tuple(form(column) for column in table.header), table.rows)


def everything(draw: np.random.Generator, table: Table) -> Table:
    for change in (times, float_ids, missing_values, capitals):
        table = change(draw, table)
    return table


CHANGES: dict[str, Change] = {
    "times of another tool": times,
    "ids as floats": float_ids,
    "ids with an exponent": exponents,
    "texts for missing values": missing_values,
    "columns in capitals": capitals,
    "all of these": everything,
}


def copy_of(workspace: Workspace, draw: np.random.Generator) -> tuple[Path, Path]:
    """A clean cohort, and a copy of it that may be changed."""
    cohort = clean_cohort(workspace, int(draw.integers(COHORTS)))
    return cohort, Path(shutil.copytree(cohort, workspace.folder / "raw"))


def check_same_store(workspace: Workspace, copy: Path, cohort: Path, protocol: str, named: list[str]) -> str:
    """Extract the copy; the store must be that of the clean cohort."""
    done = extract(copy, workspace.folder / "store", protocol)
    right = right_result(workspace, cohort, read_clean(cohort, "patients"), protocol)
    return check_result(done, lambda: contents(workspace.folder / "store"), [right], named, error=False)


def attempt_export(change: Change, draw: np.random.Generator, workspace: Workspace) -> str:
    """One table, or each, as another tool exports it."""
    cohort, copy = copy_of(workspace, draw)
    for name in ALL if draw.integers(2) else [pick(draw, ALL)]:
        table = change(draw, read_clean(cohort, name)).content()
        put(copy, name, gzip.compress(table), ".csv.gz")
    return check_same_store(workspace, copy, cohort, pick(draw, ("medmod", "corrected")), [])


SHARDS = (
    "{table}-{n:04d}{end}", "{table}_{n}{end}", "{table}{n:012d}{end}", "{table}.part{n}{end}",
    "{table}-{n:05d}-of-{count:05d}{end}", "{table}/part-{n:05d}-0f{end}", "{table}{end}/{n}{end}",
    "{table}/data_{n}{end}",
)  # fmt: skip


def write_shards(draw: np.random.Generator, cohort: Path, copy: Path, name: str) -> list[Path]:
    """Replace a table by shards of any layout and kind of file; return their paths."""
    old, layout, end = path_of(copy, name), pick(draw, SHARDS), pick(draw, (".csv", ".csv.gz", ".parquet"))
    stem = old.name.removesuffix(".csv.gz")
    table, count = read_clean(cohort, name), int(draw.integers(1, 5))
    old.unlink()
    paths = []
    for n, rows in enumerate(np.array_split(np.arange(len(table.rows)), count)):
        part = Table(name, table.header, tuple(table.rows[row] for row in rows)).content()
        path = old.with_name("x").parent / layout.format(table=stem, n=n, count=count, end=end)
        path.parent.mkdir(exist_ok=True)
        if end == ".parquet":
            pl.read_csv(io.BytesIO(part), infer_schema=False).write_parquet(path)
        else:
            path.write_bytes(gzip.compress(part) if end == ".csv.gz" else part)
        paths.append(path)
    return paths


def attempt_shards(draw: np.random.Generator, workspace: Workspace) -> str:
    """A table in shards."""
    cohort, copy = copy_of(workspace, draw)
    for name in {pick(draw, ALL), pick(draw, EVENTS)}:
        write_shards(draw, cohort, copy, name)
    return check_same_store(workspace, copy, cohort, pick(draw, ("medmod", "corrected")), [])


def attempt_lost_shard(draw: np.random.Generator, workspace: Workspace) -> str:
    """Shards of which one, but the last, is lost: an error, never a smaller store."""
    cohort, copy = copy_of(workspace, draw)
    name = pick(draw, ALL)
    while len(paths := write_shards(draw, cohort, copy, name)) < 3:
        for path in paths:
            path.unlink()
        shutil.copy(path_of(cohort, name), copy / path_of(cohort, name).relative_to(cohort))
        for folder in {path.parent for path in paths}:
            shutil.rmtree(folder) if not any(folder.iterdir()) else None
    pick(draw, paths[1:-1]).unlink()
    return clear_error(extract(copy, workspace.folder / "store"), ["of the shards beside it, number"])


NO_CELLS: dict[type[pl.DataType], tuple[str, ...]] = {
    pl.Int64: (PLANTED, "1.5", "1e400", "9223372036854775808", "0x1F", "1 2"),
    pl.Float64: (PLANTED, "1,5", "--5", "1 2", "0x1F"),
    pl.Datetime: (
        PLANTED, "2150-01-01 14:05:60", "50-01-01 14:05:00", "0050-01-01 14:05:00", "2150-01-01 24:00:00",
        "2150-02-30 14:05:00", "2150-01-01T14:05:00+02:00", "01/02/2150 14:05", "5678925900",
    ),
}  # fmt: skip


def attempt_guilty_line(draw: np.random.Generator, workspace: Workspace) -> str:
    """Cells that are well in another form, and one that is not: the error names its line and column."""
    cohort, copy = copy_of(workspace, draw)
    table = read_clean(cohort, pick(draw, ALL))
    if draw.integers(2):
        table = pick(draw, (times, float_ids, missing_values))(draw, table)
    kinds = {c: k for c, k in TABLES[table.name].columns.items() if k in NO_CELLS and c in table.header}
    if table.name in EVENTS:
        kinds.pop("charttime")  # only of rows that are needed
    column = pick(draw, list(kinds))
    row = some_row(draw, table)
    faulty = table.with_cell(row, column, pick(draw, NO_CELLS[kinds[column]]))
    put(copy, table.name, faulty.content(), ".csv")
    done = extract(copy, workspace.folder / "store")
    return clear_error(done, [f"line {row + 2}: {column} is not"], PLANTED)


def attempt_mended(draw: np.random.Generator, workspace: Workspace) -> str:
    """A table that is refused, and mended before the same command is run again."""
    cohort, copy = copy_of(workspace, draw)
    protocol = pick(draw, ("medmod", "corrected"))
    table = read_clean(cohort, pick(draw, ALL))
    column = pick(draw, table.read_columns(pl.Int64))
    broken = table.with_cell(some_row(draw, table), column, PLANTED)
    put(copy, table.name, broken.content(), ".csv")
    clear_error(extract(copy, workspace.folder / "store", protocol), [TABLES[table.name].pattern, table.name])
    put(copy, table.name, gzip.compress(table.content()), ".csv.gz")
    done = extract(copy, workspace.folder / "store", protocol)
    steps = re.findall(r"\[(\w+)\] done before", done.printed)
    wanted = {"chartevents": ["cohort", "xrays"], "labevents": ["cohort", "xrays"],
              "metadata": ["cohort"], "chexpert": ["cohort"]}.get(table.name, [])  # fmt: skip
    if steps != wanted:
        raise Failure(f"done before: {steps}, and not {wanted}; printed {done.printed[-300:]!r}")
    right = right_result(workspace, cohort, read_clean(cohort, "patients"), protocol)
    return check_result(done, lambda: contents(workspace.folder / "store"), [right], [], error=False)


# X-rays.


def published(copy: Path) -> list[Path]:
    """The X-rays of a cohort."""
    return sorted((copy / "cxr").rglob("*.jpg"))


def attempt_layout(draw: np.random.Generator, workspace: Workspace) -> str:
    """All X-rays in another folder, with another suffix or as PNG."""
    right = contents(store_without(workspace))
    copy = Path(shutil.copytree(pictures(workspace), workspace.folder / "raw"))
    root = copy / "cxr"
    folder = pick(draw, ("files", "resized", ".", "images/all", "deep/down", "p", ""))
    end = pick(draw, (".jpg", ".jpeg", ".JPG", ".png", ".PNG"))
    for path in published(copy):
        place = (root / folder / path.name if folder else path).with_suffix(end)
        place.parent.mkdir(parents=True, exist_ok=True)
        if end.lower() == ".png":
            Image.open(path).save(place, "PNG")
            path.unlink()
        else:
            path.rename(place)
    done = extract(copy, workspace.folder / "store")
    return check_result(done, lambda: contents(workspace.folder / "store"), [right], [], error=False)


def attempt_late(draw: np.random.Generator, workspace: Workspace) -> str:
    """X-rays that are missing, cut or empty at the first run and complete at the second."""
    right = contents(store_without(workspace))
    copy = Path(shutil.copytree(pictures(workspace), workspace.folder / "raw"))
    complete = {path: path.read_bytes() for path in published(copy)}
    late = [path for path in complete if draw.integers(2)] or list(complete)
    for path in late:
        spoilt = pick(draw, (None, b"", complete[path][:50], complete[path][:-2]))
        path.unlink() if spoilt is None else path.write_bytes(spoilt)
    done = extract(copy, workspace.folder / "store")
    if done.status:
        clear_error(done, ["X-rays can be used"])
    for path in late:
        path.write_bytes(complete[path])
    done = extract(copy, workspace.folder / "store")
    return check_result(done, lambda: contents(workspace.folder / "store"), [right], [], error=False)


NO_XRAYS: dict[str, tuple[str, str, str]] = {  # table, column, and the text of the error
    "subject_id": ("metadata", "9", "0 of the cohort's subjects"),
    "study_id": ("metadata", "9", "0 of these a row in mimic-cxr"),
    "StudyDate": ("metadata", "22500101", "none was taken during one of the"),
    "ViewPosition": ("metadata", "LATERAL", "--views AP: mimic-cxr-*-metadata has LATERAL"),
}


def attempt_no_xrays(draw: np.random.Generator, workspace: Workspace) -> str:
    """X-rays of which none can be used: an error, never a store without X-rays."""
    copy = Path(shutil.copytree(pictures(workspace), workspace.folder / "raw"))
    column = pick(draw, (*NO_XRAYS, "files"))
    if column == "files":
        named = "X-rays can be used (first: "
        for path in published(copy):
            path.rename(path.with_suffix(pick(draw, (".dcm", ".txt", ".jpg.part"))))
    else:
        name, text, named = NO_XRAYS[column]
        table = read_clean(copy, name)
        for row in range(len(table.rows)):
            table = table.with_cell(row, column, text)
        put(copy, name, table.content(), ".csv")
    return clear_error(extract(copy, workspace.folder / "store"), [named])


def faults() -> list[Fault]:
    """All kinds of exports."""
    exports = [Fault("exports", name, partial(attempt_export, change)) for name, change in CHANGES.items()]
    return [
        *exports,
        Fault("exports", "shards", attempt_shards),
        Fault("exports", "a shard is lost", attempt_lost_shard),
        Fault("exports", "the guilty line", attempt_guilty_line),
        Fault("exports", "a table is mended", attempt_mended),
        Fault("X-ray folders", "another layout", attempt_layout),
        Fault("X-ray folders", "images arrive late", attempt_late),
        Fault("X-ray folders", "no image can be used", attempt_no_xrays),
    ]
