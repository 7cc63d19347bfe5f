"""Synthetic chart events and laboratory results: items, values over time, and errors of real charting."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.random import Generator

from datasets.schema import RESOURCES
from datasets.synthetic.common import CHART, DAY, HOUR, LABS, random_stream, scatter_ids
from datasets.synthetic.frames import to_datetimes
from datasets.synthetic.latents import LATENTS, Course, loadings_of
from datasets.synthetic.patients import Block
from utils.yaml_files import load_yaml

NUISANCE_FACTORS = 3
CHART_COLUMNS = (
    "subject_id", "hadm_id", "stay_id", "caregiver_id", "charttime", "storetime", "itemid", "value",
    "valuenum", "valueuom", "warning",
)  # fmt: skip
LAB_COLUMNS = (
    "labevent_id", "subject_id", "hadm_id", "specimen_id", "itemid", "order_provider_id", "charttime",
    "storetime", "value", "valuenum", "valueuom", "ref_range_lower", "ref_range_upper", "flag", "priority",
    "comments",
)  # fmt: skip
UNREADABLE = ("ERROR", "___", "Unable to score", "NOTDONE")
MANUAL_SYSTOLIC = (227243, 224167)
MANUAL_DIASTOLIC = (227242, 224643)
URINE_GLUCOSE = 51478


@dataclass(frozen=True)
class Item:
    """A chart or laboratory item: the channel that it shows, when it is written, and how."""

    source: str  # chart, admission (to the ICU, once) or lab
    itemid: int
    label: str
    channel: str
    unit: str
    every: int  # hours
    chance: float
    decimals: int
    group: str  # of stays
    scale: str  # one of `scales`, or empty: a number
    fluid: str


@dataclass(frozen=True)
class Scale:
    """Texts of an ordinal item from worst to best, the standard scores between them, and charted numbers."""

    texts: list[str]
    thresholds: list[float]
    numbers: list[int] | None = None


@cache
def scales() -> dict[str, Scale]:
    """Return the scales by name."""
    entries: Any = load_yaml((RESOURCES / "synthetic_scales.yaml").read_bytes(), "synthetic_scales.yaml")
    return {name: Scale(**entry) for name, entry in entries.items()}


@cache
def items(source: str) -> tuple[Item, ...]:
    """Return the items of a source.

    >>> items("lab")[0].label
    'Glucose'
    """
    path = RESOURCES / "synthetic_items.csv"
    table = pl.read_csv(path, comment_prefix="#", glob=False).fill_null("")
    return tuple(Item(**row) for row in table.filter(pl.col("source") == source).iter_rows(named=True))


def item_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return MIMIC-IV's dictionaries d_items and d_labitems of these items."""
    charts = pl.DataFrame([*items("chart"), *items("admission")]).unique("itemid", maintain_order=True)
    empty = pl.lit(None)
    charts = charts.select(
        "itemid", "label", pl.col("label").alias("abbreviation"), pl.lit("chartevents").alias("linksto"),
        pl.lit("Synthetic").alias("category"), pl.col("unit").replace("", None).alias("unitname"),
        pl.lit("Numeric").alias("param_type"), empty.alias("lownormalvalue"), empty.alias("highnormalvalue"),
    )  # fmt: skip
    labs = pl.DataFrame(items("lab")).select("itemid", "label", "fluid", category=pl.lit("Chemistry"))
    return charts, labs


@dataclass(frozen=True)
class Moments:
    """Times when something may be charted: row of the stay or admission [n], and seconds since 1970 [n]."""

    owner: np.ndarray
    time: np.ndarray

    @classmethod
    def between(cls, begin: np.ndarray, end: np.ndarray, step: int) -> Self:
        """Return the multiples of `step` seconds from `begin` [m] to `end` [m], one owner after the other.

        >>> Moments.between(np.array([10, 0]), np.array([7200, 100]), 3600)
        Moments(owner=array([0, 0, 1]), time=array([3600, 7200,    0]))
        """
        first = -(-begin // step)
        count = np.maximum(end // step - first + 1, 0)
        owner = np.repeat(np.arange(len(begin)), count)
        return cls(owner, (first[owner] + _index_within(count)) * step)


def _index_within(counts: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... for each of consecutive groups of some sizes."""
    return np.asarray(np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))


def draw_scores(
    rng: Generator, moments: Moments, patient: np.ndarray, states: np.ndarray, course: Course
) -> np.ndarray:
    """Draw channels in standard deviations [n, C] at n moments, from latent states [n, 6] and nuisances.

    Those are each `patient`'s [m] levels, factors of a stay that move many channels, and correlated noise.
    """
    simulation = course.simulation
    loadings = np.array([[channel[name] for name in LATENTS] for channel in loadings_of("channel").values()])
    channels, owners = len(loadings), len(patient)
    baseline = rng.standard_normal((patient.max() + 1, channels))[patient]
    directions = random_stream(0, channels).standard_normal((NUISANCE_FACTORS, channels))
    factors = rng.standard_normal((owners, NUISANCE_FACTORS)) @ (directions / np.sqrt(NUISANCE_FACTORS))
    level = simulation.vitals_baseline * baseline + simulation.vitals_private * factors
    noise = simulation.vitals_noise * _draw_noise(rng, moments, (owners, channels), simulation.vitals_memory)
    total = simulation.vitals_signal * states @ loadings.T + level[moments.owner] + noise
    nuisances = (simulation.vitals_baseline, simulation.vitals_private, simulation.vitals_noise)
    scale = np.sqrt(simulation.vitals_signal**2 + np.square(nuisances).sum())
    return np.asarray(total / scale)  # with a standard deviation near 1 whatever the settings


def _draw_noise(rng: Generator, moments: Moments, shape: tuple[int, int], memory: float) -> np.ndarray:
    """Draw first-order autoregressive noise [n, C] of variance 1 along the moments of each owner."""
    owners, channels = shape
    count = np.bincount(moments.owner, minlength=owners)
    index = _index_within(count)
    noise = rng.standard_normal((len(moments.owner), channels), dtype=np.float32)
    padded = np.zeros((int(count.max(initial=0)), owners, channels), dtype=np.float32)
    padded[index, moments.owner] = noise
    innovation = np.float32(np.sqrt(1 - memory**2))
    for step in range(1, len(padded)):
        padded[step] = np.float32(memory) * padded[step - 1] + innovation * padded[step]
    return np.asarray(padded[index, moments.owner])


def channel_values(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return channels in their units [n] by name, with those derived from others, from scores [n, C]."""
    values = {}
    for score, (name, channel) in zip(scores.T, loadings_of("channel").items(), strict=True):
        values[name] = np.clip(channel["mean"] + channel["sd"] * score, channel["low"], channel["high"])
    values["diastolic"] = np.maximum(values["mean_pressure"] - values["pulse_pressure"] / 3, 15)
    values["systolic"] = values["diastolic"] + values["pulse_pressure"]
    values["fahrenheit"] = values["temperature"] * 1.8 + 32
    values["oxygen_percent"] = values["oxygen_fraction"] * 100
    return values


def draw_body(
    rng: Generator, patients: int, heart_failure: np.ndarray, patient: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw height and weight of each stay [m] in both units; heart failure adds the weight of water."""
    height = rng.normal(170, 10, patients).clip(140, 205)[patient]
    weight = (rng.normal(81, 18, patients)[patient] + 3 * heart_failure).clip(38, 220)
    return {"height": height, "inches": height / 2.54, "weight": weight, "pounds": weight / 0.453592}


def draw_groups(rng: Generator, states: np.ndarray) -> dict[str, np.ndarray]:
    """Draw which stays [m] have an arterial line, a ventilator and so on, from their first states [m, 6]."""
    draw = rng.random((len(states), 5))
    line = draw[:, 0] < 1 / (1 + np.exp(0.5 - 0.6 * states[:, 0]))
    ventilated = draw[:, 1] < 1 / (1 + np.exp(0.8 - 0.6 * states[:, 0] - 0.4 * states[:, 2]))
    celsius = draw[:, 2] < 0.12
    fraction = draw[:, 3] < 0.08
    return {
        "all": np.ones(len(states), dtype=bool), "line": line, "cuff": ~line, "ventilated": ventilated,
        "breathing": ~ventilated, "celsius": celsius, "fahrenheit": ~celsius,
        "fraction": ventilated & fraction, "percent": ventilated & ~fraction,
        "diabetic": draw[:, 4] < 1 / (1 + np.exp(0.6 - 0.8 * states[:, 5])),
    }  # fmt: skip


class ItemEvents(NamedTuple):
    """Events of one item: row of the moments [k], and value in the channel's unit [k]."""

    item: Item
    rows: np.ndarray
    values: np.ndarray


def _as_text(events: Sequence[ItemEvents]) -> pl.DataFrame:
    """Return events of items, one item after the other: row, itemid, and value, valuenum, valueuom as text.

    Values of all items are written as text at once: most of the time would be that of many small tables.
    """
    items = [item for item, _, _ in events]
    which = np.repeat(np.arange(len(items)), [len(rows) for _, rows, _ in events])
    texts: list[str] = []  # of all scales in turn
    numbers: list[int | None] = []
    written = []
    for item, _, values in events:
        if item.scale:
            scale = scales()[item.scale]
            written.append(np.searchsorted(scale.thresholds, values) + len(texts))
            texts += scale.texts
            numbers.extend(scale.numbers or [None] * len(scale.texts))
        else:
            written.append(np.round(values, item.decimals))
    value = np.concatenate(written)
    # Kinds of items: a rank on a scale, a whole number, or one with decimals.
    kind = np.array([0 if item.scale else 1 if item.decimals == 0 else 2 for item in items])[which]
    rank, whole = value[kind == 0].astype(np.int64), pl.Series(value[kind == 1])
    plain = pl.concat([whole.cast(pl.Int32).cast(pl.String), pl.Series(value[kind == 2]).cast(pl.String)])
    back = np.argsort(np.argsort(kind, kind="stable"), kind="stable")
    scored = [pl.Series(texts, dtype=pl.String), pl.Series(numbers, dtype=pl.Int64).cast(pl.String)]
    value_text, number_text = (pl.concat([text.gather(rank), plain]).gather(back) for text in scored)
    unit = pl.Series([item.unit or None for item in items], dtype=pl.String)
    return pl.DataFrame(
        {
            "row": np.concatenate([rows for _, rows, _ in events]), "value": value_text,
            "valuenum": number_text, "itemid": pl.Series([item.itemid for item in items]).gather(which),
            "valueuom": unit.gather(which),
        }
    )  # fmt: skip


def draw_charts(seed: int, block: int, simulated: Block) -> pl.DataFrame:
    """Draw the chart events of a block's ICU stays, with the release's columns."""
    rng, stays, course = random_stream(seed, block, CHART), simulated.stays, simulated.course
    intime, outtime = stays["intime"].to_numpy(), stays["outtime"].to_numpy()
    admission, patient = stays["admission"].to_numpy(), stays["patient"].to_numpy()
    end = np.minimum(outtime + 2 * HOUR, course.death[admission])
    moments = Moments.between(intime - 2 * HOUR, end, HOUR)
    owner = moments.owner
    states = course.at(admission[owner], moments.time)
    values = channel_values(draw_scores(rng, moments, patient, states, course))
    first_states = course.at(admission, intime)
    body = draw_body(rng, len(simulated.patients), first_states[:, 1], patient)
    groups = draw_groups(rng, first_states)
    values["weight"] = body["weight"][owner]
    outside = (moments.time < intime[owner]) | (moments.time > outtime[owner])
    charted = ~outside | (rng.random(len(outside)) < 0.3)
    phase = rng.integers(0, 24, len(stays))[owner] + moments.time // HOUR
    events = []
    for item in items("chart"):
        due = charted & (phase % item.every == 0) & groups[item.group][owner]
        rows = np.flatnonzero(due & (rng.random(len(phase)) < item.chance))
        events.append(ItemEvents(item, rows, values[item.channel][rows]))
    fourth = np.minimum(np.searchsorted(owner, np.arange(len(stays))) + 3, len(phase) - 1)
    for item in items("admission"):
        selected = np.flatnonzero(rng.random(len(stays)) < item.chance)
        events.append(ItemEvents(item, fourth[selected], body[item.channel][selected]))
    return _finish_charts(rng, _as_text(events), moments, stays)


def _finish_charts(
    rng: Generator, events: pl.DataFrame, moments: Moments, stays: pl.DataFrame
) -> pl.DataFrame:
    """Add stays and times to chart events, and corrupt a few."""
    is_repeated = pl.Series(rng.random(len(events)) < 0.004)
    again = events.filter(is_repeated & (pl.col("valuenum") == pl.col("value")))
    number = pl.col("valuenum").cast(pl.Float64) * pl.Series(rng.uniform(0.95, 1.05, len(again)))
    again = again.with_columns(value=number.round(2).cast(pl.String)).with_columns(valuenum="value")
    events = corrupt_values(rng, pl.concat([events, again]))  # `again`: the same second, another value
    row, chance = events["row"].to_numpy(), rng.random((4, len(events)))
    minutes = np.where(chance[0] < 0.1, (chance[1] * 59).astype(np.int64), 0)  # most charting is on the hour
    ids = stays[moments.owner[row]].select("subject_id", "hadm_id", "stay_id")
    hadm_chance, stay_chance = pl.Series(chance[2]), pl.Series(chance[3])
    wrong_stay = pl.when(stay_chance < 0.0005).then(pl.col("stay_id") + 1).otherwise("stay_id")
    frame = pl.concat([ids, events], how="horizontal").with_columns(
        hadm_id=pl.when(hadm_chance >= 0.002).then("hadm_id"),
        stay_id=pl.when(stay_chance < 0.998).then(wrong_stay),
        caregiver_id=pl.lit(None),
        charttime=pl.Series(moments.time[row] + minutes * 60),
        warning=pl.lit(0),
    )
    frame = frame.with_columns(storetime=pl.col("charttime") + 1260)
    return to_datetimes(frame, ("charttime", "storetime")).select(CHART_COLUMNS)


def _draw_texts(rng: Generator, texts: Sequence[str], count: int) -> pl.Series:
    """Draw texts as `rng.choice` does, without NumPy's arrays of text, which take longer than the rest."""
    return pl.Series(texts).gather(rng.integers(len(texts), size=count))


def corrupt_values(rng: Generator, events: pl.DataFrame) -> pl.DataFrame:
    """Make a few values empty, unreadable, out of range, or blood pressures written as "120/80"."""
    draw = pl.Series(rng.random(len(events)))
    text = _draw_texts(rng, UNREADABLE, len(events))
    low = _draw_texts(rng, ("0", "-4", "1.5"), len(events))
    tenfold = pl.col("value") + "0"  # rare, as each one adds to the deviation of its channel
    is_number = pl.col("valuenum") == pl.col("value")
    is_systolic = pl.col("itemid").is_in(MANUAL_SYSTOLIC)
    is_manual = is_systolic | pl.col("itemid").is_in(MANUAL_DIASTOLIC)
    pair = pl.when(is_systolic).then(pl.col("value") + "/70").otherwise("118/" + pl.col("value"))
    value = (
        pl.when(draw < 0.002).then(None)
        .when(draw < 0.003).then(text)
        .when((draw < 0.0033) & is_number).then(low)
        .when((draw < 0.0034) & is_number).then(tenfold)
        .when((draw > 0.7) & is_manual).then(pair)
        .otherwise("value")
    )  # fmt: skip
    is_numeric_text = pl.col("value").str.contains(r"^-?[0-9.]+$")
    number = pl.when(is_numeric_text).then("value").when(draw >= 0.004).then("valuenum")
    return events.with_columns(value=value).with_columns(valuenum=number)


def draw_labs(seed: int, block: int, simulated: Block) -> pl.DataFrame:
    """Draw the laboratory events of a block's admissions: unsorted, and some without admission."""
    rng, admissions, course = random_stream(seed, block, LABS), simulated.admissions, simulated.course
    begin, end = admissions["admittime"].to_numpy() - 12 * HOUR, admissions["dischtime"].to_numpy()
    moments = Moments.between(begin, np.minimum(end, begin + 40 * DAY), 6 * HOUR)
    patient = admissions["patient"].to_numpy()
    states = course.at(moments.owner, moments.time)
    values = channel_values(draw_scores(rng, moments, patient, states, course))
    count = len(moments.time)
    values["urine_glucose"] = rng.choice([0, 0, 100, 300, 1000], count)
    values["urine_ph"] = rng.choice([5, 5.5, 6, 6.5, 7], count)
    values["fluid_ph"] = rng.normal(7.45, 0.1, count)
    events = []
    for item in items("lab"):
        due = (moments.time // HOUR % item.every == 0) & (rng.random(count) < item.chance)
        events.append(ItemEvents(item, np.flatnonzero(due), values[item.channel][due]))
    frame = _as_text(events)
    return _finish_labs(rng, frame[rng.permutation(len(frame))], moments, admissions, block)


def _finish_labs(
    rng: Generator, events: pl.DataFrame, moments: Moments, admissions: pl.DataFrame, block: int
) -> pl.DataFrame:
    """Add admissions, times and the release's columns to laboratory events, and corrupt a few."""
    row = events["row"].to_numpy()
    ids = admissions[moments.owner[row]].select("subject_id", "hadm_id", "admittime")
    minutes = rng.integers(0, 360, len(moments.time))[row]  # all results of a specimen have one time
    frame = pl.concat([ids, corrupt_values(rng, events)], how="horizontal")
    frame = frame.with_columns(charttime=pl.Series(moments.time[row] + minutes * 60))
    in_admission = (pl.col("charttime") >= pl.col("admittime")) & pl.Series(rng.random(len(row)) > 0.08)
    is_negative = (pl.col("value") == "0") & (pl.col("itemid") == URINE_GLUCOSE)
    frame = frame.with_columns(
        hadm_id=pl.when(in_admission).then("hadm_id"),
        value=pl.when(is_negative).then(pl.lit("NEG")).otherwise("value"),
        labevent_id=pl.Series(np.arange(len(events)) + block * 1_000_000),
        specimen_id=pl.Series(scatter_ids(1_000_000, row + block * 100_000)),
        **dict.fromkeys(("order_provider_id", "ref_range_lower", "ref_range_upper", "flag"), pl.lit(None)),
        priority=_draw_texts(rng, ("ROUTINE", "STAT"), len(row)),
        comments=pl.when(pl.col("value") == "___").then(pl.lit("HEMOLYZED, RESULT SUPPRESSED")),
        storetime=pl.col("charttime") + 2400,
    )
    return to_datetimes(frame, ("charttime", "storetime")).select(LAB_COLUMNS)
