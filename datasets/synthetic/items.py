"""The chart and laboratory items that synthetic stays have, as MIMIC-IV names and writes them."""

from dataclasses import dataclass
from functools import cache

import polars as pl

from datasets.schema import RESOURCES


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
    scale: str  # one of SCALES, or empty: a number
    fluid: str


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


@cache
def items(source: str) -> tuple[Item, ...]:
    """Return the items of a source.

    >>> items("lab")[0].label
    'Glucose'
    """
    path = RESOURCES / "synthetic_items.csv"
    table = pl.read_csv(path, comment_prefix="#").fill_null("")
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
