"""Stream a raw event table: cleaned observations of the cohort's stays, on each stay's own clock."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import pyarrow.compute as pc

from datasets.events.cleaning import REDACTED, RawObservations, ValueCounts, clean, item_map
from datasets.events.distinct import distinct_rows, number_cells
from datasets.raw.cells import convert, is_invalid, to_int
from datasets.raw.integrity import check_not_truncated, explain_parse_error
from datasets.raw.plain_times import plain_seconds
from datasets.raw.reading import scan_file
from datasets.raw.tables import RawTable, event_table, find_files
from datasets.schema import variables
from utils.threads import THREADS, in_order

ROWS_PER_BATCH = 100_000
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

    def find(self, rows: pl.DataFrame) -> np.ndarray:
        """Return where the stay of each row [n] is, by hadm_id and (if there is one) stay_id; -1 for none."""
        hadm_id = _ids(rows["hadm_id"])
        first = np.flatnonzero(np.append(True, hadm_id[1:] != hadm_id[:-1]))  # neighbours share an admission
        first = first[: len(hadm_id)]
        stay = np.minimum(np.searchsorted(self.hadm_id, hadm_id[first]), len(self.hadm_id) - 1)
        stay = np.where(self.hadm_id[stay] == hadm_id[first], stay, -1)
        stay = np.repeat(stay, np.diff(first, append=len(hadm_id)))
        if "stay_id" in rows.columns:
            stay_id = _ids(rows["stay_id"])
            stay[(stay_id != MISSING) & (stay_id != self.stay_id[stay])] = -1
        return stay


def _ids(cells: pl.Series) -> np.ndarray:
    """Return ids, MISSING where there is none."""
    if not cells.null_count():
        return cells.to_numpy()
    ids: np.ndarray = cells.to_arrow().fill_null(MISSING).to_numpy(zero_copy_only=False)
    return ids


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

    Polars reads and filters ahead on all cores. The rest is done batch by batch, in threads, because each
    further step of its streaming engine keeps rows of its own in memory.

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

    def work(batch: pl.DataFrame) -> tuple[tuple[int, bool] | None, CleanedRows]:
        end = (int(batch["row"][-1]), bool(batch["probe"][-1])) if len(batch) else None
        is_cut = batch["itemid"].null_count() > 0
        return end, clean_rows(batch.drop_nulls("itemid") if is_cut else batch, index, protocol)

    for path in find_files(root, table):
        last_row, is_complete = -1, path.suffix == ".parquet"
        if path.suffix == ".csv":
            check_not_truncated(path)
        with explain_parse_error(path, raw):
            for end, cleaned in in_order(work, _wanted_rows(path, raw, wanted), THREADS):
                if end is not None:
                    last_row, is_complete = end
                    on_row(rows_before + last_row)
                yield cleaned.add_to(counts, sizes)
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
                yield convert(batch, dict.fromkeys(is_text, pl.Int64), batch["row"]) if is_text else batch
                last_row = int(batch["row"][-1]) if len(batch) else last_row
            return
        except pl.exceptions.PolarsError:
            if as_text:
                raise


@dataclass(frozen=True)
class CleanedRows:
    """What rows of an event table give: events (EVENT_DTYPE) within the stays, and counts of their values.

    `sizes` are the heights and weights [n] of the whole admission, at `size_second` [n] since ICU admission.
    """

    events: np.ndarray
    counts: ValueCounts
    sizes: np.ndarray
    size_second: np.ndarray

    def add_to(self, counts: ValueCounts, sizes: BodySize | None) -> np.ndarray:
        """Add counts and sizes to those of other rows; return the events."""
        counts.add(self.counts)
        if sizes is not None:
            sizes.add(self.sizes, self.size_second)
        return self.events


@dataclass(frozen=True)
class PlacedRows:
    """Rows [n] of an event table that are used: first the `inside` ones that lie within the cohort's stays.

    The others are heights and weights of the rest of the admission. `second` counts from ICU admission.
    """

    row: np.ndarray
    stay_row: np.ndarray
    second: np.ndarray
    inside: int

    @classmethod
    def of(cls, batch: pl.DataFrame, index: StayIndex, protocol: str) -> Self:
        """Find the stays of a batch's rows."""
        stay = index.find(batch)
        rows = np.flatnonzero(stay >= 0)
        stay = stay[rows]
        second = _seconds(batch[["row", "charttime"]][rows]) - index.intime[stay]
        in_stay = (second >= 0) & (second <= index.last_second[stay])
        inside, outside = np.flatnonzero(in_stay), np.flatnonzero(~in_stay & (second > NO_TIME))
        item = batch["itemid"].to_numpy()[rows[outside]]
        used = np.concatenate([inside, outside[np.isin(item, _size_items(protocol))]])
        return cls(rows[used], index.stay_row[stay[used]], second[used], len(inside))

    def events(self, cleaned: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the cleaned values (EVENT_DTYPE) of the rows `chosen` among these, with stay and second."""
        cleaned["stay_row"], cleaned["second"] = self.stay_row[chosen], self.second[chosen]
        return cleaned


def clean_rows(batch: pl.DataFrame, index: StayIndex, protocol: str) -> CleanedRows:
    """Clean the rows of an event table that lie in the cohort's stays; see `stream_observations`.

    An item with the same value is cleaned once, and then copied to all of its rows.
    """
    batch = batch.rechunk()  # taking rows from many chunks is slow
    placed, counts = PlacedRows.of(batch, index, protocol), ValueCounts()
    distinct, which = _distinct_charted(batch, placed.row, protocol)
    repeats = np.bincount(which[: placed.inside], minlength=len(distinct))
    cleaned = clean(RawObservations.parse(distinct), repeats, protocol, counts)
    usable = np.flatnonzero(~np.isnan(cleaned["value"])[which[: placed.inside]])
    sizes = np.flatnonzero(_are_sizes(cleaned["variable"])[which])
    events, of_sizes = (placed.events(cleaned.take(which[chosen]), chosen) for chosen in (usable, sizes))
    return CleanedRows(events, counts, of_sizes, placed.second[sizes])


def _distinct_charted(
    batch: pl.DataFrame, rows: np.ndarray, protocol: str
) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the distinct observations [d] of some rows [n] of a batch, and which of them each row is [n].

    The number beside a text (valuenum) counts only where the text may be redacted.
    """
    columns = ["itemid", "value"]
    charted = batch[columns][rows]
    (item, _), (text, texts) = (number_cells(charted[name]) for name in columns)
    numbers = [item, text]
    if protocol == "corrected":
        columns.append("valuenum")
        may_be_redacted = pc.match_substring(texts, REDACTED).fill_null(False)
        redacted = np.flatnonzero(may_be_redacted.to_numpy(zero_copy_only=False)[text])
        beside = np.zeros(len(rows), np.int64)
        beside[redacted] = number_cells(batch["valuenum"][rows[redacted]])[0] + 1
        numbers.append(beside)
    first, which = distinct_rows(numbers)
    return batch[columns][rows[first]], which


def _seconds(rows: pl.DataFrame) -> np.ndarray:
    """Return the charttime of rows in seconds [n] since 1970, MISSING where there is none."""
    times = rows["charttime"]
    if times.dtype == pl.String and (seconds := plain_seconds(times, MISSING)) is not None:
        return seconds
    times = convert(rows, {"charttime": pl.Datetime}, rows["row"])["charttime"]
    seconds = times.dt.epoch("s").fill_null(MISSING).to_numpy()
    return seconds


def _are_sizes(variable: np.ndarray) -> np.ndarray:
    """Return whether variables [n] are height or weight."""
    is_size = np.zeros(len(variables()), bool)
    is_size[list(_body_variables())] = True
    sizes: np.ndarray = is_size[variable]
    return sizes


def _size_items(protocol: str) -> np.ndarray:
    """Return the items of height and weight."""
    items, variable = (item_map(protocol)[name].to_numpy() for name in ("itemid", "variable"))
    found: np.ndarray = items[_are_sizes(variable)]
    return found
