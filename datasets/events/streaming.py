"""Stream a raw event table: cleaned observations of the cohort's stays, on each stay's own clock."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from datasets.events.cleaning import RawObservations, ValueCounts, clean, item_map, to_float
from datasets.raw.integrity import check_not_truncated, explain_parse_error
from datasets.raw.reading import parse_times, scan_table
from datasets.raw.tables import find_table

ROWS_PER_BATCH = 50_000
MISSING = -(1 << 62)  # in place of a missing id or time


@dataclass(frozen=True)
class _StayIndex:
    """The cohort's stays ordered by admission, one array element per stay; intime in seconds since 1970."""

    hadm_id: np.ndarray
    stay_id: np.ndarray
    stay_row: np.ndarray
    intime: np.ndarray
    last_second: np.ndarray

    @classmethod
    def of(cls, stays: pl.DataFrame) -> Self:
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
) -> Iterator[np.ndarray]:
    """Yield batches of cleaned observations (EVENT_DTYPE) of the cohort's stays, within [0, LOS] of each.

    Polars reads and filters ahead on all cores. The rest is done batch by batch, because each further step of
    its streaming engine keeps rows of its own in memory.

    Args:
        root: Folder of the MIMIC-IV release.
        table: `chartevents` or `labevents`.
        stays: Cohort with stay_row, hadm_id, stay_id, intime and los_hours.
        protocol: `medmod` or `corrected`.
        counts: Implausible and redacted values are added to it.
        on_row: Called with the index of the last row of the file that was read, for a progress bar.

    Raises:
        ValueError: The table is missing, truncated, or cannot be parsed.
    """
    source = {"chartevents": "chart", "labevents": "lab"}[table]
    wanted = item_map(protocol).filter(pl.col("source") == source)["itemid"]
    index = _StayIndex.of(stays)
    path = find_table(root, table)
    last_row_is_complete = False
    if path.suffix != ".gz":
        check_not_truncated(path)
    with explain_parse_error(root, table):
        raw = scan_table(root, table, row_index="row", truncation_probe="value")
        # Rows without item or time are kept until here, as the last one may have been cut off before them.
        is_cut = pl.col("itemid").is_null() | pl.col("charttime").is_null()
        is_wanted = pl.col("itemid").is_in(wanted.implode()) & pl.col("value").is_not_null()
        rows = raw.filter(is_wanted | is_cut).with_columns(pl.col("^(hadm|stay)_id$").fill_null(MISSING))
        for batch in rows.collect_batches(chunk_size=ROWS_PER_BATCH, maintain_order=True):
            if len(batch):
                on_row(int(batch["row"][-1]))
                last_row_is_complete = bool(batch["probe"][-1])
            yield _observations_in_stays(
                batch.filter(pl.col("itemid").is_not_null()), index, protocol, counts
            )
    if not last_row_is_complete:  # a cell to the right of the value shows that the value was not cut off
        check_not_truncated(path)


def _observations_in_stays(
    batch: pl.DataFrame, index: _StayIndex, protocol: str, counts: ValueCounts
) -> np.ndarray:
    hadm_id = batch["hadm_id"].to_numpy()
    stay = np.minimum(np.searchsorted(index.hadm_id, hadm_id), len(index.hadm_id) - 1)
    matches = index.hadm_id[stay] == hadm_id
    if "stay_id" in batch.columns:
        stay_id = batch["stay_id"].to_numpy()
        matches &= (stay_id == MISSING) | (stay_id == index.stay_id[stay])
    rows = np.flatnonzero(matches)
    stay = stay[rows]
    time = parse_times("charttime").dt.epoch("s").fill_null(MISSING)
    second = batch[rows].select(time).to_series().to_numpy() - index.intime[stay]
    in_stay = np.flatnonzero((second >= 0) & (second <= index.last_second[stay]))
    events = clean(_parse_values(batch[rows[in_stay]], protocol), protocol, counts)
    events["stay_row"] = index.stay_row[stay[in_stay]]
    events["second"] = second[in_stay]
    return events.compress(~np.isnan(events["value"]))


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
