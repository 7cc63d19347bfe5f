"""Synthetic charted events and laboratory results, with the dirt of real charting."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from datasets.synthetic.patients import CHART, DAY, HOUR, LABS, Block, Course, spread, stream, timestamps

# Loadings of each channel, in its standard deviations, on (severity, heart failure, consolidation, effusion,
# renal, chronic): effusion hardly shows in vitals, the kidney in them alone. Last: mean, standard deviation.
LOADINGS = {
    "heart_rate": (0.80, 0.40, 0.20, 0.00, 0.00, -0.10, 87, 16),
    "mean_pressure": (-0.55, -0.10, -0.10, 0.00, 0.10, 0.30, 79, 11),
    "pulse_pressure": (-0.10, -0.75, 0.00, -0.10, 0.15, 0.30, 57, 14),
    "respiratory_rate": (0.25, 0.20, 0.20, 0.75, 0.15, 0.05, 19.5, 4.5),
    "oxygen_saturation": (-0.20, -0.15, -0.35, -0.70, 0.00, -0.20, 96.6, 1.9),
    "temperature": (0.05, -0.10, 0.85, 0.00, -0.10, -0.05, 36.9, 0.55),
    "glucose": (0.20, 0.00, 0.05, 0.00, 0.10, 0.75, 140, 36),
    "oxygen_fraction": (0.35, 0.20, 0.65, 0.35, 0.00, 0.05, 0.45, 0.11),
    "ph": (-0.40, -0.05, -0.05, 0.00, -0.65, 0.00, 7.38, 0.06),
    "consciousness": (-0.65, 0.00, -0.05, 0.00, -0.30, -0.10, 0, 1),
    "perfusion": (-0.45, -0.65, 0.00, 0.00, -0.05, -0.10, 0, 1),
    "creatinine": (0.20, 0.10, 0.00, 0.00, 0.90, 0.30, 1.5, 0.6),
}
LIMITS = {
    "heart_rate": (25, 200), "mean_pressure": (30, 150), "pulse_pressure": (12, 140),
    "respiratory_rate": (4, 55), "oxygen_saturation": (60, 100), "temperature": (32, 41.5),
    "glucose": (30, 600), "oxygen_fraction": (0.21, 1.0), "ph": (6.9, 7.7), "creatinine": (0.2, 12),
}  # fmt: skip
PRIVATE_FACTORS = 3


@dataclass(frozen=True)
class Item:
    """How one chart or laboratory item is written: which stays have it, how often, and what it looks like.

    `channel` names the value; `every` is in hours; `words` is the row of WORDS that the item is charted in.
    """

    itemid: int
    label: str
    channel: str
    unit: str
    every: int
    chance: float
    decimals: int = 0
    who: str = "all"
    words: str = ""


CHART_ITEMS = (
    Item(220045, "Heart Rate", "heart_rate", "bpm", 1, 0.97),
    Item(220210, "Respiratory Rate", "respiratory_rate", "insp/min", 1, 0.96),
    Item(220277, "O2 saturation pulseoxymetry", "oxygen_saturation", "%", 1, 0.95),
    Item(220179, "Non Invasive Blood Pressure systolic", "systolic", "mmHg", 1, 0.9, who="cuff"),
    Item(220180, "Non Invasive Blood Pressure diastolic", "diastolic", "mmHg", 1, 0.9, who="cuff"),
    Item(220181, "Non Invasive Blood Pressure mean", "mean_pressure", "mmHg", 1, 0.9, who="cuff"),
    Item(220050, "Arterial Blood Pressure systolic", "systolic", "mmHg", 1, 0.95, who="line"),
    Item(220051, "Arterial Blood Pressure diastolic", "diastolic", "mmHg", 1, 0.95, who="line"),
    Item(220052, "Arterial Blood Pressure mean", "mean_pressure", "mmHg", 1, 0.95, who="line"),
    Item(225309, "ART BP Systolic", "systolic", "mmHg", 12, 0.1, who="line"),
    Item(225310, "ART BP Diastolic", "diastolic", "mmHg", 12, 0.1, who="line"),
    Item(225312, "ART BP Mean", "mean_pressure", "mmHg", 12, 0.1, who="line"),
    Item(224322, "IABP Mean", "mean_pressure", "mmHg", 4, 0.01, who="line"),
    Item(227243, "Manual Blood Pressure Systolic Right", "systolic", "mmHg", 24, 0.03),
    Item(227242, "Manual Blood Pressure Diastolic Right", "diastolic", "mmHg", 24, 0.03),
    Item(224167, "Manual Blood Pressure Systolic Left", "systolic", "mmHg", 24, 0.02),
    Item(224643, "Manual Blood Pressure Diastolic Left", "diastolic", "mmHg", 24, 0.02),
    Item(223761, "Temperature Fahrenheit", "fahrenheit", "°F", 4, 0.9, 1, who="fahrenheit"),
    Item(223762, "Temperature Celsius", "temperature", "°C", 4, 0.9, 1, who="celsius"),
    Item(223835, "Inspired O2 Fraction", "oxygen_percent", "None", 4, 0.9, who="percent"),
    Item(223835, "Inspired O2 Fraction", "oxygen_fraction", "None", 4, 0.9, 2, who="fraction"),
    Item(224690, "Respiratory Rate (Total)", "respiratory_rate", "insp/min", 4, 0.8, who="ventilated"),
    Item(224689, "Respiratory Rate (spontaneous)", "respiratory_rate", "insp/min", 8, 0.5, who="ventilated"),
    Item(224422, "Spont RR", "respiratory_rate", "bpm", 12, 0.1, who="ventilated"),
    Item(220739, "GCS - Eye Opening", "consciousness", "", 4, 0.93, words="eye"),
    Item(223901, "GCS - Motor Response", "consciousness", "", 4, 0.93, words="motor"),
    Item(223900, "GCS - Verbal Response", "consciousness", "", 4, 0.93, who="breathing", words="verbal"),
    Item(223900, "GCS - Verbal Response", "consciousness", "", 4, 0.93, who="ventilated", words="tube"),
    Item(223951, "Capillary Refill R", "perfusion", "", 8, 0.8, words="right foot"),
    Item(224308, "Capillary Refill L", "perfusion", "", 8, 0.8, words="left foot"),
    Item(225664, "Glucose finger stick (range 70-100)", "glucose", "", 6, 0.8, who="diabetic"),
    Item(220621, "Glucose (serum)", "glucose", "mg/dL", 12, 0.8),
    Item(226537, "Glucose (whole blood)", "glucose", "mg/dL", 8, 0.2, who="ventilated"),
    Item(223830, "PH (Arterial)", "ph", "units", 6, 0.6, 2, who="line"),
    Item(220274, "PH (Venous)", "ph", "units", 24, 0.1, 2),
    Item(220227, "Arterial O2 Saturation", "oxygen_saturation", "%", 12, 0.3, who="line"),
    Item(224639, "Daily Weight", "weight", "kg", 24, 0.5, 1),
    # Read by no task, as most of a real chart.
    Item(220048, "Heart Rhythm", "perfusion", "", 2, 0.8, words="rhythm"),
    Item(223791, "Pain Level", "respiratory_rate", "", 4, 0.8),
    Item(228096, "Richmond-RAS Scale", "respiratory_rate", "", 4, 0.6),
    Item(220046, "Heart rate Alarm - High", "systolic", "bpm", 2, 0.8),
    Item(224161, "Resp Alarm - High", "heart_rate", "insp/min", 2, 0.8),
    Item(223770, "O2 Saturation Pulseoxymetry Alarm - Low", "oxygen_saturation", "%", 2, 0.8),
    Item(220074, "Central Venous Pressure", "pulse_pressure", "mmHg", 1, 0.8, who="line"),
    Item(224685, "Tidal Volume (observed)", "glucose", "mL", 1, 0.9, who="ventilated"),
    Item(224695, "Peak Insp. Pressure", "respiratory_rate", "cmH2O", 1, 0.9, who="ventilated"),
    Item(220339, "PEEP set", "respiratory_rate", "cmH2O", 2, 0.9, who="ventilated"),
)
ONCE_ITEMS = (  # on admission to the unit
    Item(226512, "Admission Weight (Kg)", "weight", "kg", 1, 0.7, 1),
    Item(226531, "Admission Weight (lbs.)", "pounds", "", 1, 0.5, 1),
    Item(226707, "Height", "inches", "Inch", 1, 0.55),
    Item(226730, "Height (cm)", "height", "cm", 1, 0.5),
)
LAB_ITEMS = (
    Item(50931, "Glucose", "glucose", "mg/dL", 12, 0.85),
    Item(50809, "Glucose", "glucose", "mg/dL", 12, 0.25),
    Item(50820, "pH", "ph", "units", 6, 0.35, 2),
    Item(50817, "Oxygen Saturation", "oxygen_saturation", "%", 12, 0.2),
    Item(51478, "Glucose", "urine_glucose", "mg/dL", 24, 0.3),
    Item(51491, "pH", "urine_ph", "units", 24, 0.3, 1),
    Item(51094, "pH", "urine_ph", "units", 48, 0.05, 1),
    Item(50831, "pH", "fluid_ph", "units", 48, 0.03, 2),
    Item(50912, "Creatinine", "creatinine", "mg/dL", 12, 0.85, 1),  # read by no task
)
FLUIDS = {51478: "Urine", 51491: "Urine", 51094: "Urine", 50831: "Other Body Fluid"}
# Words from worst to best, the standard scores of the channel that part them, the numbers charted with them.
WORDS = {
    "eye": (("None", "To Pain", "To Speech", "Spontaneously"), (-1.7, -1.1, -0.3), (1, 2, 3, 4)),
    "motor": (
        (
            "No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws", "Localizes Pain",
            "Obeys Commands",
        ),
        (-2.6, -2.4, -2.1, -1.6, -0.9), (1, 2, 3, 4, 5, 6),
    ),
    "verbal": (
        ("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused", "Oriented"),
        (-1.9, -1.5, -1.2, -0.2), (1, 2, 3, 4, 5),
    ),
    "tube": (("No Response-ETT",), (), (1,)),
    "right foot": (("Abnormal >3 secs", "Normal <3 secs"), (-1.4,), (None, None)),
    "left foot": (
        ("Delayed", "Abnormal >3 Seconds", "Brisk", "Normal <3 Seconds"), (-2.0, -1.4, 0.5), (None,) * 4,
    ),
    "rhythm": (
        ("AF (Atrial Fibrillation)", "ST (Sinus Tachycardia)", "SR (Sinus Rhythm)"), (-1.5, -0.8),
        (None,) * 3,
    ),
}  # fmt: skip
UNREADABLE = ("ERROR", "___", "Unable to score", "NOTDONE")
CHART_COLUMNS = (
    "subject_id", "hadm_id", "stay_id", "caregiver_id", "charttime", "storetime", "itemid", "value",
    "valuenum", "valueuom", "warning",
)  # fmt: skip
LAB_COLUMNS = (
    "labevent_id", "subject_id", "hadm_id", "specimen_id", "itemid", "order_provider_id", "charttime",
    "storetime", "value", "valuenum", "valueuom", "ref_range_lower", "ref_range_upper", "flag", "priority",
    "comments",
)  # fmt: skip


@dataclass(frozen=True)
class Hours:
    """Moments when something may be charted: `owner` [n] (row of the stay or admission), `time` [n] in s."""

    owner: np.ndarray
    time: np.ndarray


def hours_between(begin: np.ndarray, end: np.ndarray, step: int) -> Hours:
    """Whole steps of `step` seconds from `begin` [m] to `end` [m], one owner after the other.

    >>> hours_between(np.array([10, 0]), np.array([7200, 100]), 3600)
    Hours(owner=array([0, 0, 1]), time=array([3600, 7200,    0]))
    """
    first = -(-begin // step)
    count = np.maximum(end // step - first + 1, 0)
    owner = np.repeat(np.arange(len(begin)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return Hours(owner, (first[owner] + within) * step)


def standard_scores(
    rng: np.random.Generator, hours: Hours, patient: np.ndarray, states: np.ndarray, course: Course
) -> np.ndarray:
    """Channels in standard deviations [n, C] at `hours`: signal from `states` [n, 6], and private nuisances.

    `patient` [m] is the patient of each owner. The nuisances are the patient's own level of each channel,
    factors of a stay that move many channels at once, and noise remembered from one moment to the next.
    """
    strengths, channels, owners = course.strengths, len(LOADINGS), len(patient)
    loadings = np.array([row[:6] for row in LOADINGS.values()])
    own = rng.standard_normal((patient.max() + 1, channels))[patient]
    directions = stream(0, channels).standard_normal((PRIVATE_FACTORS, channels)) / np.sqrt(PRIVATE_FACTORS)
    factors = rng.standard_normal((owners, PRIVATE_FACTORS)) @ directions
    level = strengths.vitals_baseline * own + strengths.vitals_private * factors
    noise = strengths.vitals_noise * _remembered(rng, hours, owners, channels, strengths.vitals_memory)
    total = strengths.vitals_signal * states @ loadings.T + level[hours.owner] + noise
    nuisance = (strengths.vitals_baseline, strengths.vitals_private, strengths.vitals_noise)
    return total / np.sqrt(
        strengths.vitals_signal**2 + np.square(nuisance).sum()
    )  # spread near 1 at any strengths


def _remembered(
    rng: np.random.Generator, hours: Hours, owners: int, channels: int, memory: float
) -> np.ndarray:
    """First-order autoregressive noise [n, C] of variance 1 along each owner's moments."""
    count = np.bincount(hours.owner, minlength=owners)
    place = np.arange(len(hours.owner)) - (np.cumsum(count) - count)[hours.owner]
    drawn = rng.standard_normal((len(hours.owner), channels), dtype=np.float32)
    padded = np.zeros((int(count.max(initial=0)), owners, channels), dtype=np.float32)
    padded[place, hours.owner] = drawn
    fresh = np.float32(np.sqrt(1 - memory**2))
    for step in range(1, len(padded)):
        padded[step] = np.float32(memory) * padded[step - 1] + fresh * padded[step]
    return padded[place, hours.owner]


def channel_values(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Channels in their own units [n] by name, systolic and other derived ones too, from scores [n, C]."""
    values = {}
    for place, (name, row) in enumerate(LOADINGS.items()):
        mean, deviation = row[6:]
        values[name] = np.clip(mean + deviation * scores[:, place], *LIMITS.get(name, (-np.inf, np.inf)))
    values["diastolic"] = np.maximum(values["mean_pressure"] - values["pulse_pressure"] / 3, 15)
    values["systolic"] = values["diastolic"] + values["pulse_pressure"]
    values["fahrenheit"] = values["temperature"] * 1.8 + 32
    values["oxygen_percent"] = values["oxygen_fraction"] * 100
    return values


def _body(
    rng: np.random.Generator, patients: int, heart_failure: np.ndarray, patient: np.ndarray
) -> dict[str, np.ndarray]:
    """Height and weight of each stay [m] in both units: a patient's own, and the water of heart failure."""
    height = rng.normal(170, 10, patients).clip(140, 205)[patient]
    weight = (rng.normal(81, 18, patients)[patient] + 3 * heart_failure).clip(38, 220)
    return {"height": height, "inches": height / 2.54, "weight": weight, "pounds": weight / 0.453592}


def _groups(rng: np.random.Generator, states: np.ndarray) -> dict[str, np.ndarray]:
    """Which stays [m] have an arterial line, a ventilator and the like, from their first states [m, 6]."""
    draw = rng.random((len(states), 5))
    line = draw[:, 0] < 1 / (1 + np.exp(0.5 - 0.6 * states[:, 0]))
    ventilated = draw[:, 1] < 1 / (1 + np.exp(0.8 - 0.6 * states[:, 0] - 0.4 * states[:, 2]))
    celsius, fraction = draw[:, 2] < 0.12, draw[:, 3] < 0.08
    return {
        "all": np.ones(len(states), dtype=bool), "line": line, "cuff": ~line, "ventilated": ventilated,
        "breathing": ~ventilated, "celsius": celsius, "fahrenheit": ~celsius,
        "fraction": ventilated & fraction, "percent": ventilated & ~fraction,
        "diabetic": draw[:, 4] < 1 / (1 + np.exp(0.6 - 0.8 * states[:, 5])),
    }  # fmt: skip


def _rows(item: Item, rows: np.ndarray, values: np.ndarray) -> pl.DataFrame:
    """Events of one item: row (of the hours), itemid, and value, valuenum, valueuom as text."""
    if item.words:
        words, cuts, numbers = WORDS[item.words]
        rank = np.searchsorted(cuts, values)
        value = pl.Series(words, dtype=pl.String).gather(rank)
        number = pl.Series([None if n is None else str(n) for n in numbers], dtype=pl.String).gather(rank)
    else:
        rounded = pl.Series(np.round(values, item.decimals))
        value = (rounded if item.decimals else rounded.cast(pl.Int32)).cast(pl.String)
        number = value
    columns = {"row": rows, "value": value, "valuenum": number}
    return pl.DataFrame(columns).with_columns(
        itemid=pl.lit(item.itemid), valueuom=pl.lit(item.unit or None, pl.String)
    )


def draw_charts(seed: int, block: int, drawn: Block) -> pl.DataFrame:
    """The chart events of a block's ICU stays, with times as times; columns in the release's order."""
    rng, stays, course = stream(seed, block, CHART), drawn.stays, drawn.course
    intime, outtime = stays["intime"].to_numpy(), stays["outtime"].to_numpy()
    admission, patient = stays["admission"].to_numpy(), stays["patient"].to_numpy()
    death = course.death[admission]
    hours = hours_between(intime - 2 * HOUR, np.minimum(outtime + 2 * HOUR, death), HOUR)
    states = course.at(admission[hours.owner], hours.time)
    values = channel_values(standard_scores(rng, hours, patient, states, course))
    begin = course.at(admission, intime)
    body, groups = _body(rng, len(drawn.patients), begin[:, 1], patient), _groups(rng, begin)
    values["weight"] = body["weight"][hours.owner]
    outside = (hours.time < intime[hours.owner]) | (hours.time > outtime[hours.owner])
    kept = ~outside | (rng.random(len(outside)) < 0.3)
    phase, events = rng.integers(0, 24, len(stays))[hours.owner] + hours.time // HOUR, []
    for item in CHART_ITEMS:
        due = (
            kept
            & (phase % item.every == 0)
            & groups[item.who][hours.owner]
            & (rng.random(len(phase)) < item.chance)
        )
        rows = np.flatnonzero(due)
        events.append(_rows(item, rows, values[item.channel][rows]))
    first = np.minimum(np.searchsorted(hours.owner, np.arange(len(stays))) + 3, len(phase) - 1)
    for item in ONCE_ITEMS:
        asked = np.flatnonzero(rng.random(len(stays)) < item.chance)
        events.append(_rows(item, first[asked], body[item.channel][asked]))
    return _dirty_charts(rng, pl.concat(events), hours, stays)


def _dirty_charts(
    rng: np.random.Generator, events: pl.DataFrame, hours: Hours, stays: pl.DataFrame
) -> pl.DataFrame:
    """Give events their stays and times, and spoil a few as real charts are."""
    chosen = pl.Series(rng.random(len(events)) < 0.004)
    again = events.filter(chosen & (pl.col("valuenum") == pl.col("value")))
    number = pl.col("valuenum").cast(pl.Float64) * pl.Series(rng.uniform(0.95, 1.05, len(again)))
    again = again.with_columns(value=number.round(2).cast(pl.String)).with_columns(valuenum="value")
    events = spoil_values(rng, pl.concat([events, again]))  # `again`: the same second, another value
    row, chance = events["row"].to_numpy(), rng.random((4, len(events)))
    minutes = np.where(chance[0] < 0.1, (chance[1] * 59).astype(np.int64), 0)  # most charting is on the hour
    owner = stays[hours.owner[row]].select("subject_id", "hadm_id", "stay_id")
    lost, moved = pl.Series(chance[2]), pl.Series(chance[3])
    other = pl.when(moved < 0.0005).then(pl.col("stay_id") + 1).otherwise("stay_id")
    frame = pl.concat([owner, events], how="horizontal").with_columns(
        hadm_id=pl.when(lost >= 0.002).then("hadm_id"),
        stay_id=pl.when(moved < 0.998).then(other),
        caregiver_id=pl.lit(None),
        charttime=pl.Series(hours.time[row] + minutes * 60),
        warning=pl.lit(0),
    )
    frame = frame.with_columns(storetime=pl.col("charttime") + 1260)
    return timestamps(frame, ("charttime", "storetime")).select(CHART_COLUMNS)


def spoil_values(rng: np.random.Generator, events: pl.DataFrame) -> pl.DataFrame:
    """Replace a few values: empty, unreadable text, out of range, and blood pressures written as "120/80"."""
    draw = pl.Series(rng.random(len(events)))
    text = pl.Series(rng.choice(UNREADABLE, len(events)))
    low = pl.Series(rng.choice(["0", "-4", "1.5"], len(events)))
    high = (
        pl.col("value") + "0"
    )  # ten times as much: rare, as each one weighs on the deviation of its channel
    plain = pl.col("valuenum") == pl.col("value")
    manual = pl.col("itemid").is_in([227243, 227242, 224167, 224643])
    systolic = pl.col("itemid").is_in([227243, 224167])
    pair = pl.when(systolic).then(pl.col("value") + "/70").otherwise("118/" + pl.col("value"))
    value = (
        pl.when(draw < 0.002).then(None)
        .when(draw < 0.003).then(text)
        .when((draw < 0.0033) & plain).then(low)
        .when((draw < 0.0034) & plain).then(high)
        .when((draw > 0.7) & manual).then(pair)
        .otherwise("value")
    )  # fmt: skip
    numeric = pl.col("value").str.contains(r"^-?[0-9.]+$")
    number = pl.when(numeric).then("value").when(draw >= 0.004).then("valuenum")
    return events.with_columns(value=value).with_columns(valuenum=number)


def draw_labs(seed: int, block: int, drawn: Block) -> pl.DataFrame:
    """The laboratory events of a block's admissions, unsorted, without stays, some without admission."""
    rng, admissions, course = stream(seed, block, LABS), drawn.admissions, drawn.course
    begin, end = admissions["admittime"].to_numpy() - 12 * HOUR, admissions["dischtime"].to_numpy()
    hours = hours_between(begin, np.minimum(end, begin + 40 * DAY), 6 * HOUR)
    patient = admissions["patient"].to_numpy()
    states = course.at(hours.owner, hours.time)
    values = channel_values(standard_scores(rng, hours, patient, states, course))
    count, events = len(hours.time), []
    values["urine_glucose"] = rng.choice([0, 0, 100, 300, 1000], count)
    values["urine_ph"] = rng.choice([5, 5.5, 6, 6.5, 7], count)
    values["fluid_ph"] = rng.normal(7.45, 0.1, count)
    for item in LAB_ITEMS:
        due = (hours.time // HOUR % item.every == 0) & (rng.random(count) < item.chance)
        events.append(_rows(item, np.flatnonzero(due), values[item.channel][due]))
    frame = pl.concat(events)
    return _dirty_labs(rng, frame[rng.permutation(len(frame))], hours, drawn, block)


def _dirty_labs(
    rng: np.random.Generator, events: pl.DataFrame, hours: Hours, drawn: Block, block: int
) -> pl.DataFrame:
    """Give laboratory events their admissions, times and the release's columns."""
    admissions, row = drawn.admissions, events["row"].to_numpy()
    owner = admissions[hours.owner[row]].select("subject_id", "hadm_id", "admittime")
    minutes = rng.integers(0, 360, len(hours.time))[row]  # one specimen, one time
    place = np.arange(len(events)) + block * 1_000_000
    blank = (pl.col("value") == "0") & (pl.col("itemid") == 51478)
    frame = pl.concat([owner, spoil_values(rng, events)], how="horizontal")
    known = (pl.col("charttime") >= pl.col("admittime")) & pl.Series(rng.random(len(row)) > 0.08)
    frame = frame.with_columns(charttime=pl.Series(hours.time[row] + minutes * 60)).with_columns(
        hadm_id=pl.when(known).then("hadm_id"),
        value=pl.when(blank).then(pl.lit("NEG")).otherwise("value"),
        labevent_id=pl.Series(place),
        specimen_id=pl.Series(spread(1_000_000, row + block * 100_000)),
        **dict.fromkeys(("order_provider_id", "ref_range_lower", "ref_range_upper", "flag"), pl.lit(None)),
        priority=pl.Series(rng.choice(["ROUTINE", "STAT"], len(row))),
        comments=pl.when(pl.col("value") == "___").then(pl.lit("HEMOLYZED, RESULT SUPPRESSED")),
    ).with_columns(storetime=pl.col("charttime") + 2400)  # fmt: skip
    return timestamps(frame, ("charttime", "storetime")).select(LAB_COLUMNS)


def item_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The dictionaries of chart items and laboratory items, as far as they are used here."""
    unique = {item.itemid: item for item in (*CHART_ITEMS, *ONCE_ITEMS)}.values()
    columns = ("itemid", "label", "abbreviation", "unitname")
    items = pl.DataFrame(
        [(i.itemid, i.label, i.label, i.unit or None) for i in unique], columns, orient="row"
    )
    empty = pl.lit(None)
    items = items.select(
        "itemid", "label", "abbreviation", pl.lit("chartevents").alias("linksto"),
        pl.lit("Synthetic").alias("category"), "unitname", pl.lit("Numeric").alias("param_type"),
        empty.alias("lownormalvalue"), empty.alias("highnormalvalue"),
    )  # fmt: skip
    labs = [(i.itemid, i.label, FLUIDS.get(i.itemid, "Blood"), "Chemistry") for i in LAB_ITEMS]
    return items, pl.DataFrame(labs, ["itemid", "label", "fluid", "category"], orient="row")
