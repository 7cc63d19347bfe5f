"""Item to variable, units and cleaning: charted rows become numbers on a stay's own clock."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from datasets.raw import find_table, scan, timestamps, told
from datasets.schema import RESOURCES, variables
from utils.files import telling_when_full

# One cleaned observation: the stay's row, whole seconds since intime, the variable's place, its value (for a
# category its slot), and the order of values charted at the same second, of which the greatest stays.
RECORD = np.dtype(
    [("stay_row", "<i4"), ("second", "<i4"), ("variable", "u1"), ("value", "<f8"), ("order", "<u8")]
)
STAYS_PER_BUCKET = 256
ROWS_PER_FLUSH = 250_000
ROWS_PER_BATCH = 50_000
POUND, INCH = 0.453592, 2.54

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
    """The item map: itemid, source (chart or lab), variable (its place in the grid), and its cleaning.

    >>> items("medmod").filter(pl.col("itemid") == 220045)["variable"][0]
    8
    """
    rows = []
    for place, variable in enumerate(variables()):
        entry = _resource()[variable.name]
        corrected = entry.get("corrected", {}) if protocol == "corrected" else {}
        low, high = entry.get("range", (None, None)) if protocol == "corrected" else (None, None)
        text_order = protocol == "medmod" and entry.get("text_order", False)
        for source in ("chart", "lab"):
            for item in [*entry.get(source, []), *corrected.get(source, [])]:
                if item not in corrected.get("remove", []):
                    rows.append((item, source, place, entry["rule"], low, high, text_order))
    schema = {"itemid": pl.Int64, "source": pl.String, "variable": pl.UInt8, "rule": pl.String,
              "low": pl.Float64, "high": pl.Float64, "text_order": pl.Boolean}  # fmt: skip
    return pl.DataFrame(rows, schema, orient="row")


@cache
def _categories() -> pl.DataFrame:
    """(variable, text) -> slot in the grid and alphabetical rank, for the text categories."""
    rows = [
        (place, text, float(slot), float(sorted(v.categories).index(text)))
        for place, v in enumerate(variables())
        for slot, text in enumerate(v.categories)
    ]
    schema = {"variable": pl.UInt8, "text": pl.String, "slot": pl.Float64, "rank": pl.Float64}
    return pl.DataFrame(rows, schema, orient="row")


def _float(text: pl.Expr) -> pl.Expr:
    return text.cast(pl.Float64, strict=False)


def _part_of_pressure(part: int) -> Callable[[str], pl.Expr]:
    """ "120/80" -> one of its numbers; a plain number is itself."""

    def clean(protocol: str) -> pl.Expr:
        text = pl.col("text")
        pair = text.str.contains("/", literal=True)
        return _float(
            pl.when(pair).then(text.str.split("/").list.get(part, null_on_oob=True)).otherwise(text)
        )

    return clean


def _oxygen_fraction(protocol: str) -> pl.Expr:
    number = _float(pl.col("text"))
    if protocol == "medmod":
        return number / 100
    return pl.when(number > 1).then(number / 100).when(number > 0).then(number)


def _saturation(protocol: str) -> pl.Expr:
    number = _float(pl.col("text"))
    return pl.when(number <= 1).then(number * 100).otherwise(number)


def _height(protocol: str) -> pl.Expr:
    number, inches = _float(pl.col("text")), (pl.col("itemid") == 226707) & pl.lit(protocol == "corrected")
    return pl.when(inches).then(number * INCH).otherwise(number)


def _temperature(protocol: str) -> pl.Expr:
    number = _float(pl.col("text"))
    fahrenheit = (number >= 79) | ((pl.col("itemid") == 223761) & pl.lit(protocol == "corrected"))
    return pl.when(fahrenheit).then((number - 32) * 5 / 9).otherwise(number)


def _weight(protocol: str) -> pl.Expr:
    number = _float(pl.col("text"))
    return pl.when(pl.col("itemid") == 226531).then(number * POUND).otherwise(number)


def _capillary(protocol: str) -> pl.Expr:
    text = pl.col("text").str.to_lowercase()
    slow, normal = text.str.contains("abnormal|delayed"), text.str.contains("normal|brisk")
    return pl.when(slow).then(1.0).when(normal).then(0.0)


RULES: dict[str, Callable[[str], pl.Expr]] = {
    "number": lambda protocol: _float(pl.col("text")),
    "category": lambda protocol: pl.col("slot"),
    "systolic": _part_of_pressure(0),
    "diastolic": _part_of_pressure(1),
    "oxygen_fraction": _oxygen_fraction,
    "saturation": _saturation,
    "height": _height,
    "temperature": _temperature,
    "weight": _weight,
    "capillary": _capillary,
}


def _order_of_text() -> pl.Expr:
    """The first eight characters of a number's text as an integer that sorts as the text does."""
    text = pl.when("text_order").then(pl.col("text").str.head(8)).otherwise(pl.lit(""))
    return text.str.pad_end(8, "\0").cast(pl.Binary).bin.reinterpret(dtype=pl.UInt64, endianness="big")


def clean(rows: pl.DataFrame, protocol: str) -> pl.DataFrame:
    """Rows (itemid, text, variable, rule, low, high, text_order) with `value` and its order; unusable rows
    go.

    A value is unusable if it is no number, not finite, none of the categories, or (`corrected`) implausible.
    """
    cleaned = (pl.when(pl.col("rule") == rule).then(make(protocol)) for rule, make in RULES.items())
    value = pl.coalesce(list(cleaned))
    plausible = pl.col("low").is_null() | pl.col("value").is_between("low", "high")
    return (
        rows.join(_categories(), on=["variable", "text"], how="left")
        .with_columns(value=value)
        .filter(pl.col("value").is_finite() & plausible)
        .with_columns(
            by_value=pl.when(pl.col("rule") == "category").then(pl.col("rank")).otherwise(pl.col("value")),
            by_text=pl.when("text_order").then(_order_of_text()),
        )
    )


def observations(
    root: Path, table: str, stays: pl.DataFrame, protocol: str, watch: Callable[[int], object] = id
) -> Iterator[pl.DataFrame]:
    """Cleaned observations of the cohort's stays in one raw table, on each stay's clock, within [0, LOS], in
    batches.

    `stays` has stay_row, hadm_id, stay_id, intime and los_hours. `watch` is told the last row that was read.
    Columns: RECORD's, but with `by_value` and `by_text` for `order`. Polars reads and filters ahead; the rest
    is done batch by batch, because each further step of its streaming engine holds rows of its own.
    """
    source = {"chartevents": "chart", "labevents": "lab"}[table]
    wanted = items(protocol).filter(pl.col("source") == source).drop("source")
    own = stays.select("hadm_id", "stay_row", "intime", "los_hours", own="stay_id")
    with told(find_table(root, table)):
        raw = scan(root, table, row_index="row")
        kept = raw.filter(pl.col("itemid").is_in(wanted["itemid"].implode()) & pl.col("value").is_not_null())
        for batch in kept.collect_batches(chunk_size=ROWS_PER_BATCH, maintain_order=True):
            if len(batch):
                watch(int(batch["row"][-1]))
            yield _in_stay(batch, own, wanted, protocol)


def _in_stay(batch: pl.DataFrame, own: pl.DataFrame, wanted: pl.DataFrame, protocol: str) -> pl.DataFrame:
    if "stay_id" not in batch.columns:
        batch = batch.with_columns(stay_id=pl.lit(None, pl.Int64))
    rows = (
        batch.join(own, on="hadm_id")
        .filter(pl.col("stay_id").is_null() | (pl.col("stay_id") == pl.col("own")))
        .join(wanted, on="itemid")
        .with_columns(timestamps("charttime"), text=pl.col("value").str.strip_chars())
        .with_columns(second=(pl.col("charttime") - pl.col("intime")).dt.total_seconds())
        .filter((pl.col("second") >= 0) & (pl.col("second") <= pl.col("los_hours") * 3600 + 1e-3))
    )
    return clean(rows, protocol).select("stay_row", "second", "variable", "value", "by_value", "by_text")


def order_of_numbers(values: np.ndarray) -> np.ndarray:
    """float64 -> uint64 in the same order.

    >>> order_of_numbers(np.array([-1.0, 0.0, 2.5])).argsort().tolist()
    [0, 1, 2]
    """
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63) == 1, ~bits, bits | np.uint64(1 << 63))


def _records(rows: pl.DataFrame) -> np.ndarray:
    records = np.empty(len(rows), RECORD)
    for name in ("stay_row", "second", "variable", "value"):
        records[name] = rows[name].to_numpy()
    by_value = order_of_numbers(rows["by_value"].to_numpy())
    by_text = rows["by_text"]
    records["order"] = np.where(by_text.is_null().to_numpy(), by_value, by_text.fill_null(0).to_numpy())
    return records


def partition(rows: Iterator[pl.DataFrame], folder: Path, first: np.ndarray) -> None:
    """Append observations to one file a bucket of stays, and note each stay's first event in `first`
    (seconds).

    Memory is bounded by ROWS_PER_FLUSH rows, whatever the number and order of the rows.
    """
    waiting: list[np.ndarray] = []

    def flush() -> None:
        records = np.concatenate([np.empty(0, RECORD), *waiting])
        waiting.clear()
        np.minimum.at(first, records["stay_row"], records["second"])
        bucket = records["stay_row"] // STAYS_PER_BUCKET
        order = np.argsort(bucket, kind="stable")
        numbers, counts = np.unique(bucket, return_counts=True)
        ends = np.cumsum(counts)
        for number, start, end in zip(numbers, ends - counts, ends, strict=True):
            path = bucket_path(folder, int(number))
            with telling_when_full(path), path.open("ab") as file:
                file.write(records[order[start:end]].tobytes())

    for frame in rows:
        waiting.append(_records(frame))
        if sum(map(len, waiting)) >= ROWS_PER_FLUSH:
            flush()
    flush()


def bucket_path(folder: Path, number: int) -> Path:
    """File of a bucket of STAYS_PER_BUCKET stays."""
    return folder / f"{number:05d}.bin"


def read_bucket(folder: Path, number: int, protocol: str) -> np.ndarray:
    """A bucket's observations, one a (stay, second, variable), in that order, with the derived ones of the
    protocol."""
    path = bucket_path(folder, number)
    records = np.fromfile(path, RECORD) if path.exists() else np.empty(0, RECORD)
    records = deduplicate(records)
    return with_glasgow_total(records) if protocol == "corrected" else records


def deduplicate(records: np.ndarray) -> np.ndarray:
    """Sort by stay, second and variable; of what was charted twice at a second the greatest value stays."""
    order = np.lexsort([records[name] for name in ("value", "order", "variable", "second", "stay_row")])
    records = records[order]
    same = np.ones(max(len(records) - 1, 0), bool)
    for name in ("stay_row", "second", "variable"):
        same &= records[name][1:] == records[name][:-1]
    last = np.append(~same, True) if len(records) else np.zeros(0, bool)
    return records[last]


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
    added = np.zeros(len(moments), RECORD)
    slots = {int(text): slot for slot, text in enumerate(variables()[total].categories)}
    added["stay_row"] = [moment >> 32 for moment in moments]
    added["second"] = [moment & 0xFFFFFFFF for moment in moments]
    added["variable"] = total
    added["value"] = [slots[eye[moment] + motor[moment] + verbal[moment]] for moment in moments]
    return deduplicate(np.concatenate([records, added]))
