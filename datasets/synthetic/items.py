"""The chart and laboratory items that synthetic stays have, as MIMIC-IV names and writes them."""

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Item:
    """A chart or laboratory item: the channel that it shows, when it is written, and how.

    It is written every `every` hours with probability `chance`, for the stays of `group`: as a number with
    some decimals, or as text from one of SCALES.
    """

    itemid: int
    label: str
    channel: str
    unit: str
    every: int
    chance: float
    decimals: int = 0
    group: str = "all"
    scale: str = ""


CHART_ITEMS = (
    Item(220045, "Heart Rate", "heart_rate", "bpm", 1, 0.97),
    Item(220210, "Respiratory Rate", "respiratory_rate", "insp/min", 1, 0.96),
    Item(220277, "O2 saturation pulseoxymetry", "oxygen_saturation", "%", 1, 0.95),
    Item(220179, "Non Invasive Blood Pressure systolic", "systolic", "mmHg", 1, 0.9, group="cuff"),
    Item(220180, "Non Invasive Blood Pressure diastolic", "diastolic", "mmHg", 1, 0.9, group="cuff"),
    Item(220181, "Non Invasive Blood Pressure mean", "mean_pressure", "mmHg", 1, 0.9, group="cuff"),
    Item(220050, "Arterial Blood Pressure systolic", "systolic", "mmHg", 1, 0.95, group="line"),
    Item(220051, "Arterial Blood Pressure diastolic", "diastolic", "mmHg", 1, 0.95, group="line"),
    Item(220052, "Arterial Blood Pressure mean", "mean_pressure", "mmHg", 1, 0.95, group="line"),
    Item(225309, "ART BP Systolic", "systolic", "mmHg", 12, 0.1, group="line"),
    Item(225310, "ART BP Diastolic", "diastolic", "mmHg", 12, 0.1, group="line"),
    Item(225312, "ART BP Mean", "mean_pressure", "mmHg", 12, 0.1, group="line"),
    Item(224322, "IABP Mean", "mean_pressure", "mmHg", 4, 0.01, group="line"),
    Item(227243, "Manual Blood Pressure Systolic Right", "systolic", "mmHg", 24, 0.03),
    Item(227242, "Manual Blood Pressure Diastolic Right", "diastolic", "mmHg", 24, 0.03),
    Item(224167, "Manual Blood Pressure Systolic Left", "systolic", "mmHg", 24, 0.02),
    Item(224643, "Manual Blood Pressure Diastolic Left", "diastolic", "mmHg", 24, 0.02),
    Item(223761, "Temperature Fahrenheit", "fahrenheit", "°F", 4, 0.9, 1, group="fahrenheit"),
    Item(223762, "Temperature Celsius", "temperature", "°C", 4, 0.9, 1, group="celsius"),
    Item(223835, "Inspired O2 Fraction", "oxygen_percent", "None", 4, 0.9, group="percent"),
    Item(223835, "Inspired O2 Fraction", "oxygen_fraction", "None", 4, 0.9, 2, group="fraction"),
    Item(224690, "Respiratory Rate (Total)", "respiratory_rate", "insp/min", 4, 0.8, group="ventilated"),
    Item(
        224689, "Respiratory Rate (spontaneous)", "respiratory_rate", "insp/min", 8, 0.5, group="ventilated"
    ),
    Item(224422, "Spont RR", "respiratory_rate", "bpm", 12, 0.1, group="ventilated"),
    Item(220739, "GCS - Eye Opening", "consciousness", "", 4, 0.93, scale="eye"),
    Item(223901, "GCS - Motor Response", "consciousness", "", 4, 0.93, scale="motor"),
    Item(223900, "GCS - Verbal Response", "consciousness", "", 4, 0.93, group="breathing", scale="verbal"),
    Item(223900, "GCS - Verbal Response", "consciousness", "", 4, 0.93, group="ventilated", scale="tube"),
    Item(223951, "Capillary Refill R", "perfusion", "", 8, 0.8, scale="refill right"),
    Item(224308, "Capillary Refill L", "perfusion", "", 8, 0.8, scale="refill left"),
    Item(225664, "Glucose finger stick (range 70-100)", "glucose", "", 6, 0.8, group="diabetic"),
    Item(220621, "Glucose (serum)", "glucose", "mg/dL", 12, 0.8),
    Item(226537, "Glucose (whole blood)", "glucose", "mg/dL", 8, 0.2, group="ventilated"),
    Item(223830, "PH (Arterial)", "ph", "units", 6, 0.6, 2, group="line"),
    Item(220274, "PH (Venous)", "ph", "units", 24, 0.1, 2),
    Item(220227, "Arterial O2 Saturation", "oxygen_saturation", "%", 12, 0.3, group="line"),
    Item(224639, "Daily Weight", "weight", "kg", 24, 0.5, 1),
    # Items that no task reads, as most items of a real chart.
    Item(220048, "Heart Rhythm", "perfusion", "", 2, 0.8, scale="rhythm"),
    Item(223791, "Pain Level", "respiratory_rate", "", 4, 0.8),
    Item(228096, "Richmond-RAS Scale", "respiratory_rate", "", 4, 0.6),
    Item(220046, "Heart rate Alarm - High", "systolic", "bpm", 2, 0.8),
    Item(224161, "Resp Alarm - High", "heart_rate", "insp/min", 2, 0.8),
    Item(223770, "O2 Saturation Pulseoxymetry Alarm - Low", "oxygen_saturation", "%", 2, 0.8),
    Item(220074, "Central Venous Pressure", "pulse_pressure", "mmHg", 1, 0.8, group="line"),
    Item(224685, "Tidal Volume (observed)", "glucose", "mL", 1, 0.9, group="ventilated"),
    Item(224695, "Peak Insp. Pressure", "respiratory_rate", "cmH2O", 1, 0.9, group="ventilated"),
    Item(220339, "PEEP set", "respiratory_rate", "cmH2O", 2, 0.9, group="ventilated"),
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


@dataclass(frozen=True)
class Scale:
    """Texts of an ordinal item from worst to best, the standard scores between them, and charted numbers."""

    texts: tuple[str, ...]
    thresholds: tuple[float, ...]
    numbers: tuple[int, ...] | None = None


SCALES = {
    "eye": Scale(("None", "To Pain", "To Speech", "Spontaneously"), (-1.7, -1.1, -0.3), (1, 2, 3, 4)),
    "motor": Scale(
        (
            "No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws", "Localizes Pain",
            "Obeys Commands",
        ),
        (-2.6, -2.4, -2.1, -1.6, -0.9), (1, 2, 3, 4, 5, 6),
    ),
    "verbal": Scale(
        ("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused", "Oriented"),
        (-1.9, -1.5, -1.2, -0.2), (1, 2, 3, 4, 5),
    ),
    "tube": Scale(("No Response-ETT",), (), (1,)),
    "refill right": Scale(("Abnormal >3 secs", "Normal <3 secs"), (-1.4,)),
    "refill left": Scale(("Delayed", "Abnormal >3 Seconds", "Brisk", "Normal <3 Seconds"), (-2.0, -1.4, 0.5)),
    "rhythm": Scale(
        ("AF (Atrial Fibrillation)", "ST (Sinus Tachycardia)", "SR (Sinus Rhythm)"), (-1.5, -0.8)
    ),
}  # fmt: skip


def item_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return MIMIC-IV's dictionaries d_items and d_labitems of these items."""
    unique = {item.itemid: item for item in (*CHART_ITEMS, *ONCE_ITEMS)}.values()
    charts = pl.DataFrame(
        {
            "itemid": [item.itemid for item in unique], "label": [item.label for item in unique],
            "abbreviation": [item.label for item in unique], "linksto": "chartevents",
            "category": "Synthetic", "unitname": [item.unit or None for item in unique],
            "param_type": "Numeric", "lownormalvalue": None, "highnormalvalue": None,
        }
    )  # fmt: skip
    labs = pl.DataFrame(
        {
            "itemid": [item.itemid for item in LAB_ITEMS], "label": [item.label for item in LAB_ITEMS],
            "fluid": [FLUIDS.get(item.itemid, "Blood") for item in LAB_ITEMS], "category": "Chemistry",
        }
    )  # fmt: skip
    return charts, labs
