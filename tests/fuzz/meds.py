"""MEDS datasets that another tool has changed: read as before if they keep to the standard, else refused."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.extract_config import ExtractConfig
from datasets.extraction import extract
from tests.fuzz.cases import CommandResult, Failure, Fault, Workspace, check_result, clear_error, pick, run
from tests.fuzz.tables import contents
from tests.meds_dataset import write_meds
from tests.random_cohort import random_cohort

COHORTS, SUBJECTS = 2, 12
LAB_TIMES = ("charttime", "storetime")
TRAIN = Path("data", "train", "0.parquet")  # the shard with the most subjects
SPLITS = Path("metadata", "subject_splits.parquet")
PLANTED = "elephant"  # a patient's value
Change = Callable[[np.random.Generator, Path], None]

_RIGHT: dict[Path, dict[str, str]] = {}


def clean_dataset(workspace: Workspace, draw: np.random.Generator) -> Path:
    """The folder of a clean dataset, in one of the dialects."""
    seed, lab_time = int(draw.integers(COHORTS)), pick(draw, LAB_TIMES)
    folder = workspace.shared / f"meds_{lab_time}_{seed}"
    if not folder.exists():
        tables = random_cohort(seed, SUBJECTS).tables
        for row in tables["labevents"]:
            row["storetime"] = row["charttime"]
        write_meds(folder, tables, lab_time)
    return folder


def run_extraction(folder: Path, out: Path) -> CommandResult:
    """Run the extraction of a dataset."""
    return run(extract, ExtractConfig, "--meds", folder, "--out", out)


def right_result(workspace: Workspace, folder: Path) -> dict[str, str]:
    """The store of a dataset that keeps to the standard."""
    if folder not in _RIGHT:
        out = workspace.folder / f"right{len(_RIGHT)}"
        done = run_extraction(folder, out)
        if done.status:
            raise Failure(f"the clean dataset is refused: {done.errors}")
        _RIGHT[folder] = store_of(out)
    return _RIGHT[folder]


def attempt(change: Change, is_valid: bool, draw: np.random.Generator, workspace: Workspace) -> str:
    """Extract a changed dataset; a valid one gives the store of the clean one, others an error."""
    clean = clean_dataset(workspace, draw)
    copy = Path(shutil.copytree(clean, workspace.folder / "meds"))
    change(draw, copy)
    out = workspace.folder / "store"
    done = run_extraction(copy, out)
    if not is_valid:
        return clear_error(done, [str(copy)], PLANTED)
    right = [right_result(workspace, clean)]
    return check_result(done, lambda: store_of(out), right, [], error=False, patient_value=PLANTED)


def store_of(out: Path) -> dict[str, str]:
    """The contents of a store, without the counts of values, which count a repeated row again."""
    return {name: digest for name, digest in contents(out).items() if name != "value_counts.csv"}


def rewrite(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Replace a shard by a changed one."""
    pq.write_table(change(pl.read_parquet(path)).to_arrow(), path)


def in_order(table: pl.DataFrame, added: pl.DataFrame) -> pl.DataFrame:
    """Add rows to a shard in the order of the standard."""
    both = pl.concat([table, added])
    return both.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def in_types(path: Path, types: dict[str, pa.DataType], **options: object) -> None:
    """Write a shard again with other types of columns."""
    table = pq.read_table(path)
    fields = [pa.field(field.name, types.get(field.name, field.type)) for field in table.schema]
    pq.write_table(table.cast(pa.schema(fields)), path, **options)


def other_texts(draw: np.random.Generator, folder: Path) -> None:
    """Text as string or large_string, whichever it was not."""
    in_types(folder / TRAIN, {"code": pa.large_string(), "text_value": pa.string()})


def small_row_groups(draw: np.random.Generator, folder: Path) -> None:
    """Row groups of a few rows, which cut subjects."""
    in_types(folder / TRAIN, {}, row_group_size=int(draw.integers(1, 9)))


def float64(draw: np.random.Generator, folder: Path) -> None:
    """Numbers of 64 bits."""
    in_types(folder / TRAIN, {"numeric_value": pa.float64()})


def further_columns(draw: np.random.Generator, folder: Path) -> None:
    """Columns that the standard allows, first and last."""
    rewrite(folder / TRAIN, lambda t: t.select(pl.lit(PLANTED).alias("note"), pl.all(), unit=pl.lit("mg")))


def repeated_rows(draw: np.random.Generator, folder: Path) -> None:
    """Rows of observations that are there twice."""
    some = pl.col("code").str.starts_with("LAB//") & (pl.col("time").dt.minute() % 3 == int(draw.integers(3)))
    rewrite(folder / TRAIN, lambda t: t.select(pl.all().repeat_by(1 + some.cast(pl.UInt32)).explode()))


def unknown_codes(draw: np.random.Generator, folder: Path) -> None:
    """Events of codes that the mapping does not know, with a text that nobody reads."""

    def with_notes(table: pl.DataFrame) -> pl.DataFrame:
        notes = table.with_columns(code=pl.lit(f"NOTE//{PLANTED}"), text_value=pl.lit(PLANTED))
        return in_order(table, notes.filter(pl.col("time").is_not_null()))

    rewrite(folder / TRAIN, with_notes)


def unusable_values(draw: np.random.Generator, folder: Path) -> None:
    """Observations whose number is NaN or infinite, or whose text is no number."""
    number, text = pick(
        draw, ((np.nan, None), (np.inf, None), (None, PLANTED), (-np.inf, PLANTED), (None, " "))
    )

    def with_values(table: pl.DataFrame) -> pl.DataFrame:
        added = table.filter(pl.col("code").str.contains("^LAB//220045//"))
        number_and_text = {"numeric_value": pl.lit(number, pl.Float32), "text_value": pl.lit(text, pl.String)}
        return in_order(table, added.with_columns(**number_and_text))

    rewrite(folder / TRAIN, with_values)


def renamed_shards(draw: np.random.Generator, folder: Path) -> None:
    """Other names and folders of the shards, and an empty one."""
    table = pq.read_table(folder / TRAIN)
    (folder / "data" / "a" / "b").mkdir(parents=True)
    (folder / TRAIN).rename(folder / "data" / "a" / "b" / "shard [1].parquet")
    pq.write_table(table.slice(0, 0), folder / "data" / "empty.parquet")


def out_of_order(draw: np.random.Generator, folder: Path) -> None:
    """Two rows of a subject in the other order."""

    def swap(table: pl.DataFrame) -> pl.DataFrame:
        key = table.with_row_index().filter(
            (pl.col("subject_id") == pl.col("subject_id").shift(-1))
            & (pl.col("time") < pl.col("time").shift(-1))
        )["index"]
        first = int(pick(draw, key.to_list()))
        order = list(range(len(table)))
        order[first], order[first + 1] = order[first + 1], order[first]
        return table[order]

    rewrite(folder / TRAIN, swap)


def apart(draw: np.random.Generator, folder: Path) -> None:
    """The last row of a subject behind those of the others."""
    rewrite(
        folder / TRAIN,
        lambda t: pl.concat([t, t.filter(pl.col("subject_id") == t["subject_id"].min())[-1:]]),
    )


def in_two_files(draw: np.random.Generator, folder: Path) -> None:
    """A subject's rows in two shards."""
    table = pq.read_table(folder / TRAIN)
    cut = int(draw.integers(1, len(table) - 1))
    while table["subject_id"][cut] != table["subject_id"][cut - 1]:
        cut += 1
    pq.write_table(table.slice(0, cut), folder / TRAIN)
    pq.write_table(table.slice(cut), folder / TRAIN.with_name("1.parquet"))


def other_times(draw: np.random.Generator, folder: Path) -> None:
    """Times with a zone, or in other units."""
    units = (
        pa.timestamp("us", "UTC"),
        pa.timestamp("us", "America/New_York"),
        pa.timestamp("ns"),
        pa.string(),
    )
    in_types(folder / TRAIN, {"time": pick(draw, units)})


def lost_column(draw: np.random.Generator, folder: Path) -> None:
    """A column that the standard asks for is missing."""
    rewrite(folder / TRAIN, lambda t: t.drop(pick(draw, ("subject_id", "time", "code"))))


def no_id(draw: np.random.Generator, folder: Path) -> None:
    """A row without a subject or a code."""
    name, row = pick(draw, ("subject_id", "code")), int(draw.integers(5))
    rewrite(
        folder / TRAIN,
        lambda t: t.with_columns(pl.when(pl.int_range(pl.len()) != row).then(pl.col(name)).alias(name)),
    )


def antiquity(draw: np.random.Generator, folder: Path) -> None:
    """Charted in the year 50."""
    long_ago = pl.datetime(50, 1, 1).cast(pl.Datetime("us"))
    charted = pl.col("code").str.contains("^LAB//220045//")
    rewrite(folder / TRAIN, lambda t: in_order(t, t.filter(charted)[:1].with_columns(time=long_ago)))


def cut(draw: np.random.Generator, folder: Path) -> None:
    """A shard that ends too early, or is no Parquet file."""
    content = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(content[: int(draw.integers(len(content) - 1))])


def no_splits(draw: np.random.Generator, folder: Path) -> None:
    """No file of splits."""
    (folder / SPLITS).unlink()


def other_splits(draw: np.random.Generator, folder: Path) -> None:
    """Splits that are unknown, repeated, or not there for each subject."""
    table = pl.read_parquet(folder / SPLITS)
    changed = (
        table.with_columns(split=pl.lit("validation")),
        table.with_columns(split=pl.lit(None, pl.String)),
        table.with_columns(subject_id=pl.lit(PLANTED)),
        table.drop("split"),
        pl.concat([table, table[:1]]),
        table[1:],
    )
    pq.write_table(pick(draw, changed).to_arrow(), folder / SPLITS)


def no_data(draw: np.random.Generator, folder: Path) -> None:
    """No shard at all."""
    shutil.rmtree(folder / "data")


VALID = (other_texts, small_row_groups, float64, further_columns, repeated_rows, unknown_codes,
         unusable_values, renamed_shards)  # fmt: skip
FAULTY = (out_of_order, apart, in_two_files, other_times, lost_column, no_id, antiquity, cut, no_splits,
          other_splits, no_data)  # fmt: skip


def faults() -> list[Fault]:
    """All kinds of changed datasets."""
    return [
        Fault("MEDS", change.__name__.replace("_", " "), partial(attempt, change, changes is VALID))
        for changes in (VALID, FAULTY)
        for change in changes
    ]
