"""Stream a raw event table: cleaned observations of the cohort's stays, on each stay's own clock."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from datasets.events.cleaning import RawObservations, ValueCounts, clean, item_map, to_float
from datasets.raw.cells import convert, is_invalid, to_int
from datasets.raw.integrity import check_not_truncated, explain_parse_error
from datasets.raw.reading import scan_file
from datasets.raw.tables import RawTable, event_table, find_files
from datasets.schema import variables

ROWS_PER_BATCH = 50_000
MISSING = -(1 << 62)  # in place of a missing id or time
NO_TIME = MISSING >> 1  # greater than a missing time, and smaller than any other


@dataclass(frozen=True)
class BodySize:
    """Height and weight of each stay [stays, 2]: the first charted in the admission, before the stay too.

    `second` counts from ICU admission; `value` is NaN where none was charted.
    """

    second: np.ndarray
    value: np.ndarray

    @classmethod
    def empty(cls, stays: int) -> Self:
        """Return the sizes of stays of which nothing was read yet."""
        return cls(np.full((stays, 2), np.iinfo(np.int64).max), np.full((stays, 2), np.nan))

    def add(self, events: np.ndarray, second: np.ndarray) -> None:
        """Take up events (EVENT_DTYPE) at these seconds; of several at the first one the greatest counts."""
        for variable, column in _body_variables().items():
            rows = np.flatnonzero((events["variable"] == variable) & ~np.isnan(events["value"]))
            rows = rows[np.lexsort([-events["value"][rows], second[rows], events["stay_row"][rows]])]
            stay, first = np.unique(events["stay_row"][rows], return_index=True)
            found = second[rows[first]], events["value"][rows[first]]
            known = self.second[stay, column], self.value[stay, column]
            earlier = (found[0] < known[0]) | ((found[0] == known[0]) & (found[1] > known[1]))
            self.second[stay[earlier], column], self.value[stay[earlier], column] = (
                part[earlier] for part in found
            )


@cache
def _body_variables() -> dict[int, int]:
    """Return the index of height and weight among the variables -> its column; a user may leave them out."""
    columns = {"Height": 0, "Weight": 1}
    return {i: columns[v.name] for i, v in enumerate(variables()) if v.name in columns}


@dataclass(frozen=True)
class StayIndex:
    """The cohort's stays ordered by admission, one array element per stay; intime in seconds since 1970."""

    hadm_id: np.ndarray
    stay_id: np.ndarray
    stay_row: np.ndarray
    intime: np.ndarray
    last_second: np.ndarray

    @classmethod
    def of(cls, stays: pl.DataFrame) -> Self:
        """Take stay_row, hadm_id, stay_id, intime and los_hours of the cohort."""
        last_second = pl.col("los_hours") * 3600 + 1e-3
        table = stays.sort("hadm_id").with_columns(pl.col("intime").dt.epoch("s"), last_second=last_second)
        return cls(*(table[field.name].to_numpy() for field in fields(cls)))


def stream_observations(
    root: Path,
    table: str,
    stays: pl.DataFrame,
    protocol: str,
    counts: ValueCounts,
    on_row: Callable[[int], object] = lambda row: None,
    sizes: BodySize | None = None,
    lab_time: str = "charttime",
) -> Iterator[np.ndarray]:
    """Yield batches of cleaned observations (EVENT_DTYPE) of the cohort's stays, within [0, LOS] of each.

    Polars reads and filters ahead on all cores. The rest is done batch by batch, because each further step of
    its streaming engine keeps rows of its own in memory.

    Args:
        root: Folder of the MIMIC-IV release.
        table: `chartevents` or `labevents`.
        stays: Cohort with stay_row, hadm_id, stay_id, intime and los_hours.
        protocol: `medmod` or `corrected`.
        counts: Values, and the implausible and redacted ones, are added to it.
        on_row: Called with the index of the last row that was read, for a progress bar.
        sizes: Heights and weights are added to it, those outside of the stay too.
        lab_time: Column that is the time of laboratory values, `charttime` or `storetime`.

    Raises:
        ValueError: The table is missing, truncated, or cannot be parsed.
    """
    source = {"chartevents": "chart", "labevents": "lab"}[table]
    wanted = item_map(protocol).filter(pl.col("source") == source)["itemid"]
    index = StayIndex.of(stays)
    raw = event_table(table, lab_time)
    rows_before = 0
    for path in find_files(root, table):
        last_row, is_complete = -1, path.suffix == ".parquet"
        if path.suffix == ".csv":
            check_not_truncated(path)
        with explain_parse_error(path, raw):
            for batch in _wanted_rows(path, raw, wanted):
                if len(batch):
                    last_row, is_complete = int(batch["row"][-1]), bool(batch["probe"][-1])
                    on_row(rows_before + last_row)
                yield observations_in_stays(
                    batch.filter(pl.col("itemid").is_not_null()), index, protocol, counts, sizes
                )
        if not is_complete:  # a cell to the right of the value shows that the value was not cut off
            check_not_truncated(path)
        rows_before += last_row + 1


def _wanted_rows(path: Path, table: RawTable, wanted: pl.Series) -> Iterator[pl.DataFrame]:
    """Yield batches of the rows of some items, with their ids as numbers and "row" as in the file.

    Polars parses the ids while it scans. From where that fails it goes on with ids as text.
    """
    ids = [column for column, dtype in table.columns.items() if dtype is pl.Int64]
    last_row = -1
    for as_text in (False, True):
        scan = scan_file(path, table, as_text, row_index="row", probe="value")
        is_text = [column for column in ids if scan.collect_schema()[column] == pl.String]
        invalid = pl.any_horizontal(pl.lit(False), *(is_invalid(pl.col(c), pl.Int64) for c in is_text))
        item = to_int(pl.col("itemid")) if "itemid" in is_text else pl.col("itemid")
        # Rows without item or time are kept until here, as the last one may have been cut off before them.
        is_cut = item.is_null() | pl.col("charttime").is_null()
        is_wanted = item.is_in(wanted.implode()) & pl.col("value").is_not_null()
        keep = is_wanted | is_cut | invalid if is_text else is_wanted | is_cut
        rows = scan.filter(keep if last_row < 0 else keep & (pl.col("row") > last_row))
        try:
            for batch in rows.collect_batches(chunk_size=ROWS_PER_BATCH, maintain_order=True):
                numbered = convert(batch, dict.fromkeys(ids, pl.Int64), batch["row"])
                yield numbered.with_columns(pl.col("^(hadm|stay)_id$").fill_null(MISSING))
                last_row = int(batch["row"][-1]) if len(batch) else last_row
            return
        except pl.exceptions.PolarsError:
            if as_text:
                raise


def observations_in_stays(
    batch: pl.DataFrame, index: StayIndex, protocol: str, counts: ValueCounts, sizes: BodySize | None
) -> np.ndarray:
    """Clean the rows of an event table that lie in the cohort's stays; see `stream_observations`."""
    hadm_id = batch["hadm_id"].to_numpy()
    stay = np.minimum(np.searchsorted(index.hadm_id, hadm_id), len(index.hadm_id) - 1)
    matches = index.hadm_id[stay] == hadm_id
    if "stay_id" in batch.columns:
        stay_id = batch["stay_id"].to_numpy()
        matches &= (stay_id == MISSING) | (stay_id == index.stay_id[stay])
    rows = np.flatnonzero(matches)
    batch, stay = batch[rows], stay[rows]
    charted = convert(batch.select("row", "charttime"), {"charttime": pl.Datetime}, batch["row"])
    second = charted["charttime"].dt.epoch("s").fill_null(MISSING).to_numpy() - index.intime[stay]
    in_stay = np.flatnonzero((second >= 0) & (second <= index.last_second[stay]))
    events = clean(_parse_values(batch[in_stay], protocol), protocol, counts)
    events["stay_row"] = index.stay_row[stay[in_stay]]
    events["second"] = second[in_stay]
    if sizes is not None:
        sizes.add(events, second[in_stay])
        _add_sizes_outside(batch, second, stay, index, protocol, sizes)
    return events.compress(~np.isnan(events["value"]))


def _add_sizes_outside(
    batch: pl.DataFrame,
    second: np.ndarray,
    stay: np.ndarray,
    index: StayIndex,
    protocol: str,
    sizes: BodySize,
) -> None:
    """Add the heights and weights that were charted in the admission, but before or after the stay."""
    items = item_map(protocol).filter(pl.col("variable").is_in(list(_body_variables())))["itemid"]
    is_size = batch["itemid"].is_in(items.implode()).to_numpy()
    in_time = (second >= 0) & (second <= index.last_second[stay])
    outside = np.flatnonzero(is_size & ~in_time & (second > NO_TIME))
    events = clean(_parse_values(batch[outside], protocol), protocol, ValueCounts())
    events["stay_row"] = index.stay_row[stay[outside]]
    sizes.add(events, second[outside])


def _parse_values(batch: pl.DataFrame, protocol: str) -> RawObservations:
    """Return the values of rows; under `corrected` the number of a redacted text is its valuenum."""
    text = pl.col("value").str.strip_chars()
    redacted = (text != "") & (text.str.strip_chars("_") == "")
    number = to_float(text)
    if protocol == "corrected":
        number = pl.when(redacted).then(to_float(pl.col("valuenum").str.strip_chars())).otherwise(number)
    parsed = batch.select("itemid", text=text, number=number, redacted=redacted)
    columns = (parsed[name].to_numpy() for name in ("number", "redacted"))
    return RawObservations(parsed["itemid"].to_numpy(), parsed["text"], *columns)
