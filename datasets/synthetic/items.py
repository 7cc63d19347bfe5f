"""The chart and laboratory items that synthetic stays have, as MIMIC-IV names and writes them."""

from dataclasses import dataclass
from functools import cache

import polars as pl
import yaml

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
    entries = yaml.safe_load((RESOURCES / "synthetic_scales.yaml").read_text())
    return {name: Scale(**entry) for name, entry in entries.items()}


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
