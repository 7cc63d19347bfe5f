"""Map items to variables, and turn charted text into numbers in the variables' units."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Self

import numpy as np
import polars as pl

from datasets.schema import RESOURCES, read_resource, variables

# One cleaned observation: the stay's row, whole seconds since intime, the variable's index, its value (for a
# category: its slot), and a key that orders values charted at the same second, of which the greatest is kept.
EVENT_DTYPE = np.dtype(
    [("stay_row", "<i4"), ("second", "<i4"), ("variable", "u1"), ("value", "<f8"), ("tie_break", "<u8")]
)
SOURCES = ("chart", "lab")  # of items: icu/chartevents and hosp/labevents
KG_PER_POUND = 0.453592
CM_PER_INCH = 2.54
HUNDREDTH, NINTH = 1 / 100, 1 / 9  # multiplied with: a division would change the last bit of published stores
REDACTED = "_"  # the release writes several in place of what it hides
MAX_FLOAT32 = float(np.finfo(np.float32).max)


@cache
def _entries() -> dict[str, dict[str, Any]]:
    """Return the entries of variables.yaml by variable.

    Raises:
        ValueError: An entry does not fit, channels.yaml has other variables, or two share an item.
    """
    path = RESOURCES / "variables.yaml"
    entries = read_resource(path)
    known = {variable.name: bool(variable.categories) for variable in variables()}
    if not isinstance(entries, dict) or entries.keys() != known.keys():
        names = map(str, known.keys() ^ set(entries if isinstance(entries, dict) else ()))
        raise ValueError(f"{path} and channels.yaml differ in {', '.join(sorted(names))}; give each in both")
    for name, is_category in known.items():
        if fault := _entry_fault(entries[name], is_category):
            raise ValueError(f"{path}: {name} {fault}; see docs/extending.md")
    owners: dict[int, str] = {}
    for name, entry in entries.items():
        for item in _items(entry):
            if owners.setdefault(item, name) != name:
                raise ValueError(f"{path}: {owners[item]} and {name} share item {item}; remove it from one")
    return entries


def _items(entry: Mapping[str, Any]) -> list[Any]:
    """Return the items of an entry under both protocols."""
    parts = entry, entry.get("corrected", {})
    return [item for part in parts for source in SOURCES for item in part.get(source, [])]


def _entry_fault(entry: object, is_category: bool) -> str:
    """Return what is wrong with an entry of variables.yaml, "" if nothing is."""
    parts = (entry, entry.get("corrected", {})) if isinstance(entry, dict) else ()
    if not parts or not all(isinstance(part, dict) for part in parts):
        return "must hold keys"
    allowed = ({"rule", "range", "text_order", "corrected", *SOURCES}, {"remove", *SOURCES})
    if unknown := [str(key) for part, keys in zip(parts, allowed, strict=True) for key in part.keys() - keys]:
        return f"has the unknown key {min(unknown)}"
    lists = [part[key] for part in parts for key in ("remove", *SOURCES) if key in part]
    if not all(isinstance(items, list) and all(type(item) is int for item in items) for items in lists):
        return "must list its items as whole numbers: [50813]"
    rules = [name for name in RULES if (name in CATEGORY_RULES) == is_category]
    if parts[0].get("rule") not in rules:
        return f"needs a rule, one of {', '.join(rules)}"
    if not is_category and not _is_range(parts[0].get("range")):
        return "needs a range of plausible values: [lowest, highest]"
    return ""


def _is_range(limits: object) -> bool:
    if not isinstance(limits, list) or not all(type(limit) in (int, float) for limit in limits):
        return False
    return len(limits) == 2 and bool(limits[0] < limits[1])


@cache
def plausible_ranges() -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest plausible value [K] of the continuous channels, in grid order."""
    ranges = [_entries()[variable.name]["range"] for variable in variables() if not variable.categories]
    low, high = np.array(ranges, np.float64).reshape(-1, 2).T
    return low, high


@cache
def item_map(protocol: str) -> pl.DataFrame:
    """Return the item map by itemid: source (chart or lab), variable (its index in the grid), and cleaning.

    low and high are the plausible values, ends included.

    >>> item_map("medmod").filter(pl.col("itemid") == 220045)["variable"][0]
    8
    """
    entries = _entries()
    is_corrected = protocol == "corrected"
    rows = []
    for index, variable in enumerate(variables()):
        entry = entries[variable.name]
        changes = entry.get("corrected", {}) if is_corrected else {}
        low, high = entry.get("range", (-np.inf, np.inf))
        text_order = not is_corrected and entry.get("text_order", False)
        for source in SOURCES:
            for item in [*entry.get(source, []), *changes.get(source, [])]:
                if item not in changes.get("remove", []):
                    rows.append((item, source, index, entry["rule"], low, high, text_order))
    schema = {
        "itemid": pl.Int64, "source": pl.String, "variable": pl.UInt8, "rule": pl.String, "low": pl.Float64,
        "high": pl.Float64, "text_order": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema, orient="row").sort("itemid")


def _zeros() -> np.ndarray:
    return np.zeros(len(variables()), np.int64)


@dataclass(frozen=True)
class ValueCounts:
    """Values charted in the cohort's stays, [V] by variable: those read, implausible ones, and redacted ones.

    `values` counts what goes into the grid; of several at the same second, each.
    """

    values: np.ndarray = field(default_factory=_zeros)
    implausible: np.ndarray = field(default_factory=_zeros)
    redacted: np.ndarray = field(default_factory=_zeros)

    def add(self, others: Self) -> None:
        """Add the counts of other values."""
        for counted in fields(self):
            getattr(self, counted.name)[:] += getattr(others, counted.name)

    def table(self) -> pl.DataFrame:
        """Return the counts, a row per variable."""
        names = [variable.name for variable in variables()]
        return pl.DataFrame({"variable": names} | {f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class RawObservations:
    """Charted items, [n] each: itemid, the value as a number (NaN if it is none), and as stripped text.

    `redacted` says whether the text is MIMIC's `___`, which the release puts in place of what it hides.
    `charted` holds the texts of these and other observations, and `row` which of them are these: few rules
    read the text.
    """

    item: np.ndarray
    number: np.ndarray
    redacted: np.ndarray
    charted: pl.Series
    row: np.ndarray

    @classmethod
    def parse(cls, charted: pl.DataFrame) -> Self:
        """Take itemid and value of rows; with valuenum, the number of a redacted text is its valuenum."""
        text = pl.col("value").str.strip_chars()
        is_redacted = (text != "") & (text.str.strip_chars(REDACTED) == "")
        number = to_float(text)
        if "valuenum" in charted.columns:
            valuenum = to_float(pl.col("valuenum").str.strip_chars())
            number = pl.when(is_redacted).then(valuenum).otherwise(number)
        parsed = charted.select("itemid", number=number, redacted=is_redacted, text=text)
        item, value, redacted = (parsed[name].to_numpy() for name in ("itemid", "number", "redacted"))
        return cls(item, value, redacted, parsed["text"], np.arange(len(parsed)))

    def __len__(self) -> int:
        return len(self.item)

    @property
    def text(self) -> pl.Series:
        """Return the values as stripped text."""
        return self.charted[self.row]

    def take(self, rows: np.ndarray) -> Self:
        """Return the observations at these indices."""
        arrays = (self.item[rows], self.number[rows], self.redacted[rows])
        return type(self)(*arrays, self.charted, self.row[rows])

    def evaluate(self, expression: pl.Expr) -> np.ndarray:
        """Evaluate an expression over the column "text"."""
        return self.text.to_frame("text").select(expression).to_series().to_numpy()


def to_float(text: pl.Expr) -> pl.Expr:
    """Parse text as numbers; NaN where it is none."""
    return text.cast(pl.Float64, strict=False).fill_null(np.nan)


# A cleaning rule returns the values [n] of some observations under a protocol: in the variables' units, or
# slots of categories; NaN where there is no usable value.
Rule = Callable[[RawObservations, str], np.ndarray]


def _pressure(part: int) -> Rule:
    """Return the rule that takes one part of "120/80", or a plain number as it is."""
    number = to_float(pl.col("text").str.split("/").list.get(part, null_on_oob=True))
    number_or_nan = pl.when(pl.col("text").str.contains("/", literal=True)).then(number).otherwise(np.nan)

    def rule(observations: RawObservations, protocol: str) -> np.ndarray:
        value = observations.number.copy()
        pairs = np.flatnonzero(np.isnan(value))
        if len(pairs):
            value[pairs] = observations.take(pairs).evaluate(number_or_nan)
        return value

    return rule


def _oxygen_fraction(observations: RawObservations, protocol: str) -> np.ndarray:
    percent = observations.number
    if protocol == "medmod":
        return percent * HUNDREDTH
    fraction = np.where(percent > 1, percent * HUNDREDTH, percent)
    return np.where(fraction > 0, fraction, np.nan)


def _saturation(observations: RawObservations, protocol: str) -> np.ndarray:
    return np.where(observations.number <= 1, observations.number * 100, observations.number)


def _height(observations: RawObservations, protocol: str) -> np.ndarray:
    is_inches = (observations.item == 226707) & (protocol == "corrected")
    return np.where(is_inches, observations.number * CM_PER_INCH, observations.number)


def _temperature(observations: RawObservations, protocol: str) -> np.ndarray:
    degrees = observations.number
    is_fahrenheit = (degrees >= 79) | ((observations.item == 223761) & (protocol == "corrected"))
    return np.where(is_fahrenheit, (degrees - 32) * 5 * NINTH, degrees)


def _weight(observations: RawObservations, protocol: str) -> np.ndarray:
    is_pounds = observations.item == 226531
    return np.where(is_pounds, observations.number * KG_PER_POUND, observations.number)


def _capillary_refill(observations: RawObservations, protocol: str) -> np.ndarray:
    text = pl.col("text").str.to_lowercase()
    slow, normal = text.str.contains("abnormal|delayed"), text.str.contains("normal|brisk")
    return observations.evaluate(pl.when(slow).then(1.0).when(normal).then(0.0).otherwise(np.nan))


@cache
def _slots() -> dict[tuple[int, str], float]:
    """Return (itemid, text) -> slot in the grid, for the text categories."""
    return {
        (item, text): float(slot)
        for item, index in item_map("corrected").select("itemid", "variable").iter_rows()
        for slot, text in enumerate(variables()[index].categories)
    }


def _category(observations: RawObservations, protocol: str) -> np.ndarray:
    slots = _slots()
    charted = zip(observations.item.tolist(), observations.text.to_list(), strict=True)
    return np.array([slots.get(key, np.nan) for key in charted])


RULES: dict[str, Rule] = {
    "number": lambda observations, protocol: observations.number,
    "category": _category,
    "systolic": _pressure(0),
    "diastolic": _pressure(1),
    "oxygen_fraction": _oxygen_fraction,
    "saturation": _saturation,
    "height": _height,
    "temperature": _temperature,
    "weight": _weight,
    "capillary": _capillary_refill,
}
CATEGORY_RULES = ("category", "capillary")  # for variables with categories


@cache
def _alphabetical_ranks() -> np.ndarray:
    """Return [V, slots]: the alphabetical rank of each category among its variable's."""
    ranks = np.zeros((len(variables()), max(v.width for v in variables())))
    for index, variable in enumerate(variables()):
        ranks[index, : len(variable.categories)] = np.argsort(np.argsort(variable.categories))
    return ranks


def _rank_slots(variable: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Return the alphabetical ranks [n] of slots [n], NaN where the slot is."""
    ranks = _alphabetical_ranks()[variable, np.nan_to_num(slot).astype(np.int64)]
    return np.where(np.isnan(slot), np.nan, ranks)


def tie_break_of_numbers(values: np.ndarray) -> np.ndarray:
    """Map float64 to uint64 in the same order.

    >>> tie_break_of_numbers(np.array([-1.0, 0.0, 2.5])).argsort().tolist()
    [0, 1, 2]
    """
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63) == 1, ~bits, bits | np.uint64(1 << 63))


def _tie_break_of_text(observations: RawObservations) -> np.ndarray:
    """Return the first eight characters of each text as a uint64 that sorts as the text does."""
    padded = pl.col("text").str.head(8).str.pad_end(8, "\0").cast(pl.Binary)
    return observations.evaluate(padded.bin.reinterpret(dtype=pl.UInt64, endianness="big"))


@cache
def _cleaning(protocol: str) -> dict[str, np.ndarray]:
    """Return the columns of the item map, the rule as its index in RULES."""
    table = item_map(protocol).drop("source")
    codes = {rule: code for code, rule in enumerate(RULES)}
    rule = pl.col("rule").replace_strict(codes, return_dtype=pl.Int8)
    return {series.name: series.to_numpy() for series in table.with_columns(rule)}


def clean(
    observations: RawObservations, repeats: np.ndarray, protocol: str, counts: ValueCounts
) -> np.ndarray:
    """Return events [n] of EVENT_DTYPE with variable, value and tie_break; stay and second are not set.

    The values, and the implausible and redacted ones, are added to `counts`, each as often as `repeats` [n]
    says.

    The value is NaN where it is unusable: not a number or a known category, not finite as the float32 of the
    grid, or (under `corrected`) implausible.
    """
    table = _cleaning(protocol)
    row = np.searchsorted(table["itemid"], observations.item)
    variable, rule_of_row = table["variable"][row], table["rule"][row]
    value, sort_value = observations.number.copy(), observations.number.copy()
    for code, (name, rule) in enumerate(RULES.items()):
        selected = np.flatnonzero(rule_of_row == code)
        if len(selected) and name != "number":
            value[selected] = found = rule(observations.take(selected), protocol)
            is_category = name == "category"
            sort_value[selected] = _rank_slots(variable[selected], found) if is_category else found
    tie_break = tie_break_of_numbers(sort_value)
    if len(as_text := np.flatnonzero(table["text_order"][row])):
        tie_break[as_text] = _tie_break_of_text(observations.take(as_text))
    unusable = ~(np.abs(value) <= MAX_FLOAT32)
    outside = ~unusable & ((value < table["low"][row]) | (value > table["high"][row]))
    if protocol == "corrected":
        unusable |= outside
    for counted, number in (
        (~unusable, counts.values),
        (outside, counts.implausible),
        (observations.redacted, counts.redacted),
    ):
        np.add.at(number, variable[counted], repeats[counted])
    value[unusable] = np.nan
    events = np.empty(len(observations), EVENT_DTYPE)
    events["variable"], events["value"], events["tie_break"] = variable, value, tie_break
    return events
