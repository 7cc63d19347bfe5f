"""Item to variable, units and cleaning: charted rows become numbers on a stay's own clock."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import yaml

from datasets.raw import check_not_truncated, explain_parse_error, find_table, scan, timestamps
from datasets.schema import RESOURCES, variables
from utils.files import explain_disk_full

# One cleaned observation: the stay's row, whole seconds since intime, the variable's place, its value (for a
# category its slot), and the order of values charted at the same second, of which the greatest stays.
EVENT_DTYPE = np.dtype(
    [("stay_row", "<i4"), ("second", "<i4"), ("variable", "u1"), ("value", "<f8"), ("order", "<u8")]
)
STAYS_PER_BUCKET = 256
ROWS_PER_FLUSH = 250_000
ROWS_PER_BATCH = 50_000
POUND, INCH = 0.453592, 2.54
HUNDREDTH, NINTH = 1 / 100, 1 / 9  # products, not quotients: stores have always had their last bit
NO_ID = -(1 << 62)  # stands for an id or a time that is missing
LARGEST = float(np.finfo(np.float32).max)

# Points of the Glasgow Coma Scale for the texts that MIMIC-IV uses, eye, motor and verbal.
GLASGOW_POINTS = {
    "Glascow coma scale eye opening": {"None": 1, "To Pain": 2, "To Speech": 3, "Spontaneously": 4},
    "Glascow coma scale motor response": {
        "No response": 1, "Abnormal extension": 2, "Abnormal Flexion": 3, "Flex-withdraws": 4,
        "Localizes Pain": 5, "Obeys Commands": 6,
    },
    "Glascow coma scale verbal response": {
        "No Response": 1, "No Response-ETT": 1, "Incomprehensible sounds": 2, "Inappropriate Words": 3,
        "Confused": 4, "Oriented": 5,
    },
}  # fmt: skip
GLASGOW_TOTAL = "Glascow coma scale total"


@cache
def _resource() -> dict[str, dict]:
    return yaml.safe_load((RESOURCES / "variables.yaml").read_text())


@cache
def items(protocol: str) -> pl.DataFrame:
    """The item map, by itemid: source (chart or lab), variable (its place in the grid), and its cleaning.

    >>> items("medmod").filter(pl.col("itemid") == 220045)["variable"][0]
    8
    """
    rows = []
    for place, variable in enumerate(variables()):
        entry = _resource()[variable.name]
        corrected = entry.get("corrected", {}) if protocol == "corrected" else {}
        low, high = entry.get("range", (-np.inf, np.inf)) if protocol == "corrected" else (-np.inf, np.inf)
        text_order = protocol == "medmod" and entry.get("text_order", False)
        for source in ("chart", "lab"):
            for item in [*entry.get(source, []), *corrected.get(source, [])]:
                if item not in corrected.get("remove", []):
                    rows.append((item, source, place, entry["rule"], low, high, text_order))
    schema = {"itemid": pl.Int64, "source": pl.String, "variable": pl.UInt8, "rule": pl.String,
              "low": pl.Float64, "high": pl.Float64, "text_order": pl.Boolean}  # fmt: skip
    return pl.DataFrame(rows, schema, orient="row").sort("itemid")


@dataclass(frozen=True)
class RawObservations:
    """What was charted, [n] each: the item, the text without blanks around it, the number that it is (NaN:
    none).
    """

    item: np.ndarray
    text: pl.Series
    number: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: np.ndarray) -> Self:
        """Some of the rows, by their places."""
        return type(self)(self.item[rows], self.text[rows], self.number[rows])


def _float(text: pl.Expr) -> pl.Expr:
    return text.cast(pl.Float64, strict=False).fill_null(np.nan)


def _part_of_pressure(part: int) -> Callable[[RawObservations, str], np.ndarray]:
    """ "120/80" -> one of its numbers; a plain number is itself."""
    number = _float(pl.col("text").str.split("/").list.get(part, null_on_oob=True))
    number_or_nan = pl.when(pl.col("text").str.contains("/", literal=True)).then(number).otherwise(np.nan)

    def clean(rows: RawObservations, protocol: str) -> np.ndarray:
        value, pairs = rows.number.copy(), np.flatnonzero(np.isnan(rows.number))
        if len(pairs):
            value[pairs] = rows.text[pairs].to_frame("text").select(number_or_nan).to_series().to_numpy()
        return value

    return clean


def _oxygen_fraction(rows: RawObservations, protocol: str) -> np.ndarray:
    if protocol == "medmod":
        return rows.number * HUNDREDTH
    fraction = np.where(rows.number > 1, rows.number * HUNDREDTH, rows.number)
    return np.where(fraction > 0, fraction, np.nan)


def _saturation(rows: RawObservations, protocol: str) -> np.ndarray:
    return np.where(rows.number <= 1, rows.number * 100, rows.number)


def _height(rows: RawObservations, protocol: str) -> np.ndarray:
    inches = (rows.item == 226707) & (protocol == "corrected")
    return np.where(inches, rows.number * INCH, rows.number)


def _temperature(rows: RawObservations, protocol: str) -> np.ndarray:
    fahrenheit = (rows.number >= 79) | ((rows.item == 223761) & (protocol == "corrected"))
    return np.where(fahrenheit, (rows.number - 32) * 5 * NINTH, rows.number)


def _weight(rows: RawObservations, protocol: str) -> np.ndarray:
    return np.where(rows.item == 226531, rows.number * POUND, rows.number)


def _capillary(rows: RawObservations, protocol: str) -> np.ndarray:
    text = pl.col("text").str.to_lowercase()
    slow, normal = text.str.contains("abnormal|delayed"), text.str.contains("normal|brisk")
    value = pl.when(slow).then(1.0).when(normal).then(0.0).otherwise(np.nan)
    return rows.text.to_frame("text").select(value).to_series().to_numpy()


@cache
def _slots() -> pl.DataFrame:
    """(itemid, text) -> slot in the grid, for the text categories."""
    rows = [
        (item, text, float(slot))
        for item, place in items("corrected").select("itemid", "variable").iter_rows()
        for slot, text in enumerate(variables()[place].categories)
    ]
    return pl.DataFrame(rows, {"itemid": pl.Int64, "text": pl.String, "slot": pl.Float64}, orient="row")


def _category(rows: RawObservations, protocol: str) -> np.ndarray:
    asked = pl.DataFrame({"itemid": rows.item, "text": rows.text})
    found = asked.join(_slots(), on=["itemid", "text"], how="left", maintain_order="left")
    return found["slot"].fill_null(np.nan).to_numpy()


# Each gives the values of some rows, in the units of the variables or as slots; NaN where there is none.
RULES: dict[str, Callable[[RawObservations, str], np.ndarray]] = {
    "number": lambda rows, protocol: rows.number,
    "category": _category,
    "systolic": _part_of_pressure(0),
    "diastolic": _part_of_pressure(1),
    "oxygen_fraction": _oxygen_fraction,
    "saturation": _saturation,
    "height": _height,
    "temperature": _temperature,
    "weight": _weight,
    "capillary": _capillary,
}


@cache
def _alphabet() -> np.ndarray:
    """[17, slots]: place of each category among its variable's in alphabetical order."""
    ranks = np.zeros((len(variables()), max(len(v.categories) for v in variables())))
    for place, variable in enumerate(variables()):
        ranks[place, : len(variable.categories)] = np.argsort(np.argsort(variable.categories))
    return ranks


def _ranks(variable: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Alphabetical places [n] of slots [n], NaN where the slot is."""
    found = _alphabet()[variable, np.nan_to_num(slot).astype(np.int64)]
    return np.where(np.isnan(slot), np.nan, found)


def _order_of_text(text: pl.Series) -> np.ndarray:
    """The first eight characters of a number's text as a uint64 that sorts as the text does."""
    padded = pl.col("text").str.head(8).str.pad_end(8, "\0").cast(pl.Binary)
    order = padded.bin.reinterpret(dtype=pl.UInt64, endianness="big")
    return text.to_frame("text").select(order).to_series().to_numpy()


@cache
def _cleaning(protocol: str) -> dict[str, np.ndarray]:
    """The columns of `items`, the rule as its place in RULES."""
    places = {rule: place for place, rule in enumerate(RULES)}
    table = items(protocol).with_columns(pl.col("rule").replace_strict(places, return_dtype=pl.Int8))
    return {column: table[column].to_numpy() for column in table.columns if column != "source"}


def clean(rows: RawObservations, protocol: str) -> np.ndarray:
    """RECORDs [n] with variable, value and order; the value is NaN where it is unusable.

    A value is unusable if it is no number, not finite as the float32 of the grid, none of the categories, or
    (`corrected`) implausible.
    """
    table = _cleaning(protocol)
    known = np.searchsorted(table["itemid"], rows.item)
    records, by_value = np.empty(len(rows), EVENT_DTYPE), np.empty(len(rows))
    records["variable"] = variable = table["variable"][known]
    for code, (name, rule) in enumerate(RULES.items()):
        own = np.flatnonzero(table["rule"][known] == code)
        if len(own):
            value = rule(rows.take(own), protocol)
            records["value"][own] = value
            by_value[own] = _ranks(variable[own], value) if name == "category" else value
    records["order"] = order_of_numbers(by_value)
    as_text = np.flatnonzero(table["text_order"][known])
    records["order"][as_text] = _order_of_text(rows.text[as_text])
    value = records["value"]
    usable = (np.abs(value) <= LARGEST) & (value >= table["low"][known]) & (value <= table["high"][known])
    records["value"][~usable] = np.nan
    return records


@dataclass(frozen=True)
class _Stays:
    """The cohort's stays in the order of their admissions, with intime in seconds; arrays of a row a stay."""

    hadm_id: np.ndarray
    stay_id: np.ndarray
    stay_row: np.ndarray
    intime: np.ndarray
    last_second: np.ndarray

    @classmethod
    def of(cls, stays: pl.DataFrame) -> Self:
        table = stays.sort("hadm_id").with_columns(
            pl.col("intime").dt.epoch("s"), last_second=pl.col("los_hours") * 3600 + 1e-3
        )
        return cls(*(table[field.name].to_numpy() for field in fields(cls)))


def observations(
    root: Path, table: str, stays: pl.DataFrame, protocol: str, watch: Callable[[int], object] = id
) -> Iterator[np.ndarray]:
    """Cleaned observations (RECORDs) of the cohort's stays in one raw table, on each stay's clock, within
    [0, LOS], in batches.

    `stays` has stay_row, hadm_id, stay_id, intime and los_hours. `watch` is told the last row that was read.
    Polars reads and filters ahead on all cores; the rest is done batch by batch, because each further step
    of its streaming engine holds rows of its own.
    """
    source = {"chartevents": "chart", "labevents": "lab"}[table]
    wanted = items(protocol).filter(pl.col("source") == source)["itemid"]
    own, path, complete = _Stays.of(stays), find_table(root, table), False
    if path.suffix != ".gz":
        check_not_truncated(path)
    with explain_parse_error(root, table):
        raw = scan(root, table, row_index="row", behind="value")
        cut = (
            pl.col("itemid").is_null() | pl.col("charttime").is_null()
        )  # a row cut off before these is kept to be seen
        kept = raw.filter((pl.col("itemid").is_in(wanted.implode()) & pl.col("value").is_not_null()) | cut)
        kept = kept.with_columns(pl.col("^(hadm|stay)_id$").fill_null(NO_ID))
        for batch in kept.collect_batches(chunk_size=ROWS_PER_BATCH, maintain_order=True):
            if len(batch):
                watch(int(batch["row"][-1]))
                complete = bool(batch["behind"][-1])
            yield _in_stay(batch.filter(pl.col("itemid").is_not_null()), own, protocol)
    if not complete:  # a last row that goes on behind its value was not cut off before
        check_not_truncated(path)


def _in_stay(batch: pl.DataFrame, own: _Stays, protocol: str) -> np.ndarray:
    hadm_id = batch["hadm_id"].to_numpy()
    place = np.minimum(np.searchsorted(own.hadm_id, hadm_id), len(own.hadm_id) - 1)
    inside = own.hadm_id[place] == hadm_id
    if "stay_id" in batch.columns:
        stay_id = batch["stay_id"].to_numpy()
        inside &= (stay_id == NO_ID) | (stay_id == own.stay_id[place])
    rows, text = np.flatnonzero(inside), pl.col("value").str.strip_chars()
    place = place[rows]
    parsed = batch[rows].select(
        "itemid", time=timestamps("charttime").dt.epoch("s").fill_null(NO_ID), text=text, number=_float(text)
    )
    second = parsed["time"].to_numpy() - own.intime[place]
    charted = RawObservations(
        parsed["itemid"].to_numpy(),
        parsed["text"],
        parsed["number"].to_numpy(),
    )
    rows = np.flatnonzero((second >= 0) & (second <= own.last_second[place]))
    records = clean(charted.take(rows), protocol)
    records["stay_row"], records["second"] = own.stay_row[place[rows]], second[rows]
    return records.compress(~np.isnan(records["value"]))


def order_of_numbers(values: np.ndarray) -> np.ndarray:
    """float64 -> uint64 in the same order.

    >>> order_of_numbers(np.array([-1.0, 0.0, 2.5])).argsort().tolist()
    [0, 1, 2]
    """
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63) == 1, ~bits, bits | np.uint64(1 << 63))


def partition(rows: Iterator[np.ndarray], folder: Path, first: np.ndarray) -> None:
    """Append observations to one file a bucket of stays, and note each stay's first event in `first`
    (seconds).

    Memory is bounded by ROWS_PER_FLUSH rows, whatever the number and order of the rows.
    """
    waiting: list[np.ndarray] = []

    def flush() -> None:
        if not waiting:
            return
        raw_bytes = np.dtype((np.void, EVENT_DTYPE.itemsize))  # ten times as fast as field by field
        records = np.concatenate([part.view(raw_bytes) for part in waiting]).view(EVENT_DTYPE)
        waiting.clear()
        _note_first(records["stay_row"], records["second"], first)
        bucket = records["stay_row"] // STAYS_PER_BUCKET
        order = np.argsort(bucket, kind="stable")
        numbers, counts = np.unique(bucket, return_counts=True)
        ends = np.cumsum(counts)
        for number, start, end in zip(numbers, ends - counts, ends, strict=True):
            path = bucket_path(folder, int(number))
            with explain_disk_full(path), path.open("ab") as file:
                file.write(records.take(order[start:end]).tobytes())

    for records in rows:
        waiting.extend([records] if len(records) else [])
        if sum(map(len, waiting)) >= ROWS_PER_FLUSH:
            flush()
    flush()


def _note_first(stay_row: np.ndarray, second: np.ndarray, first: np.ndarray) -> None:
    """Lower `first` [stays] to the seconds [n] of events, which mostly stand stay by stay."""
    starts = np.flatnonzero(np.append(True, stay_row[1:] != stay_row[:-1]))
    np.minimum.at(first, stay_row[starts], np.minimum.reduceat(second, starts))


def bucket_path(folder: Path, number: int) -> Path:
    """File of a bucket of STAYS_PER_BUCKET stays."""
    return folder / f"{number:05d}.bin"


def read_bucket(folder: Path, number: int, protocol: str) -> np.ndarray:
    """A bucket's observations, one a (stay, second, variable), in that order, with the derived ones of the
    protocol.
    """
    path = bucket_path(folder, number)
    records = np.fromfile(path, EVENT_DTYPE) if path.exists() else np.empty(0, EVENT_DTYPE)
    records = deduplicate(records)
    return with_glasgow_total(records) if protocol == "corrected" else records


def deduplicate(records: np.ndarray) -> np.ndarray:
    """Sort by stay, second and variable; of what was charted twice at a second the greatest value stays."""
    moment = records["stay_row"].astype(np.int64) << 40 | records["second"].astype(np.int64) << 8
    moment |= records["variable"]
    order = np.argsort(moment, kind="stable")
    same = np.diff(moment[order]) == 0
    twice = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))  # few: charted at one second
    keys = [records[name][order[twice]] for name in ("value", "order")]
    order[twice] = order[twice][np.lexsort([*keys, moment[order[twice]]])]
    return records.take(order[np.append(~same, True)]) if len(records) else records


def with_glasgow_total(records: np.ndarray) -> np.ndarray:
    """Add the total of the Glasgow Coma Scale where eye, motor and verbal were charted at the same second."""
    place = {v.name: i for i, v in enumerate(variables())}
    total, parts = place[GLASGOW_TOTAL], {}
    for name, points in GLASGOW_POINTS.items():
        table = np.array([points.get(text, 0) for text in variables()[place[name]].categories])
        chosen = records[records["variable"] == place[name]]
        score = table[chosen["value"].astype(int)]
        moments = chosen["stay_row"].astype(np.int64) << 32 | chosen["second"]
        parts[name] = dict(zip(moments[score > 0].tolist(), score[score > 0].tolist(), strict=True))
    eye, motor, verbal = parts.values()
    moments = sorted(eye.keys() & motor.keys() & verbal.keys())
    added = np.zeros(len(moments), EVENT_DTYPE)
    slots = {int(text): slot for slot, text in enumerate(variables()[total].categories)}
    added["stay_row"] = [moment >> 32 for moment in moments]
    added["second"] = [moment & 0xFFFFFFFF for moment in moments]
    added["variable"] = total
    added["value"] = [slots[eye[moment] + motor[moment] + verbal[moment]] for moment in moments]
    return deduplicate(np.concatenate([records, added]))
