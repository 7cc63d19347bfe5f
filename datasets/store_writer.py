"""How the extraction writes the tables of a store: whole files that grow block by block."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.schema import SAMPLE_COLUMNS, SPLITS, variables
from utils.files import atomic_write

EVENTS_SCHEMA = pa.schema(
    [("stay_id", pa.int64()), ("hours", pa.float64()), ("variable", pa.dictionary(pa.int8(), pa.string())),
     ("value", pa.float64())]
)  # fmt: skip

ROWS_AT_ONCE = 1 << 15  # of a listfile


def events_table(records: np.ndarray, stay_ids: np.ndarray) -> pa.Table:
    """Return rows of events.parquet from deduplicated events (EVENT_DTYPE) and the stay_id of each stay."""
    names = pa.array([variable.name for variable in variables()])
    variable = pa.DictionaryArray.from_arrays(pa.array(records["variable"].astype(np.int8)), names)
    columns = [
        stay_ids[records["stay_row"]],
        records["second"] / 3600,
        variable,
        np.ascontiguousarray(records["value"]),
    ]
    return pa.table(columns, schema=EVENTS_SCHEMA)


def write_listfiles(
    samples: Path, folder: Path, stays: pd.DataFrame, labels: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """A task's listfiles, some stays at a time; the number of samples, and of those with an X-ray, of each
    split.
    """
    counts = dict.fromkeys(SPLITS, (0, 0))
    name = pl.format("{}_episode{}_timeseries.csv", "subject_id", "episode")
    known = pl.from_pandas(stays[["subject_id", "episode", "stay_id", "split"]])
    known = known.select("stay_id", "split", stay=name)
    columns = ["stay", "period_length", "stay_id", *labels, *SAMPLE_COLUMNS]
    table = pq.ParquetFile(samples)
    with ExitStack() as files:
        lists = {s: files.enter_context(atomic_write(folder / f"{s}_listfile.csv")) for s in SPLITS}
        out = {split: files.enter_context(path.open("wb")) for split, path in lists.items()}
        for file in out.values():
            pl.DataFrame(schema=columns).write_csv(file)
        for batch in table.iter_batches(ROWS_AT_ONCE):
            block = pl.from_arrow(batch)
            rows = pl.concat([known[block["stay_row"]], block], how="horizontal")
            for split in SPLITS:
                own = rows.filter(pl.col("split") == split).select(columns)
                own.write_csv(out[split], include_header=False)
                with_image = int((own["cxr_row"] >= 0).sum())
                counts[split] = counts[split][0] + len(own), counts[split][1] + with_image
    return counts


class ParquetTable:
    """A Parquet file that grows by frames, each a row group, and is there only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._place = atomic_write(path)
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        self._path = self._place.__enter__()
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Add a row group. The first frame decides the columns and their types."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))

    def __exit__(self, *error: object) -> bool | None:
        if self._writer is not None:
            self._writer.close()
        return self._place.__exit__(*error)


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write a table whole; a full disk is an OSError, as elsewhere (Polars' own writer has an error of its
    own).
    """
    with atomic_write(path) as partial:
        pq.write_table(frame.to_arrow(), partial, compression="zstd")
