"""Messages of the extraction about charted values: implausible or redacted ones, variables without any."""

from collections.abc import Mapping, Set

import polars as pl

from datasets.events.cleaning import item_map
from datasets.raw.tables import ITEM_TABLES
from datasets.schema import variables

REDACTED_CURE = "dropped; --protocol corrected takes the number beside the text, valuenum"


def print_value_counts(counts: pl.DataFrame, protocol: str) -> None:
    """Print how many values are implausible or redacted, by variable, and what happens to them."""
    use = {
        "medmod": {"implausible": "in the grid, not in the normaliser", "redacted": REDACTED_CURE},
        "corrected": {"implausible": "dropped", "redacted": "taken from valuenum"},
    }[protocol]
    for kind, meaning in use.items():
        rows = counts.filter(pl.col(kind) > 0).select("variable", kind)
        if len(rows):
            by_variable = ", ".join(f"{variable} {count}" for variable, count in rows.iter_rows())
            print(f"{kind.capitalize()} values ({meaning}; value_counts.csv): {by_variable}")


def describe_empty_variables(counts: pl.DataFrame, protocol: str, known_items: Mapping[str, Set[int]]) -> str:
    """Return a line that names the variables with items but without a value, "" if each has one.

    Args:
        counts: Table of ValueCounts.
        protocol: `medmod` or `corrected`.
        known_items: Items that a release describes, by source (`chart`, `lab`); a source that is not there
            has no dictionary.
    """
    readable = {variables()[index].name for index in item_map(protocol)["variable"].unique()}
    empty = [v for v in counts.filter(pl.col("values") == 0)["variable"].to_list() if v in readable]
    if not empty:
        return ""
    named = "; ".join(f"{name} ({_describe_items(name, protocol, known_items)})" for name in empty)
    return (
        f"no value was read of {len(empty)} variables: {named}. If the data should have some, check the "
        "items in datasets/resources/variables.yaml, and for MEDS the codes of the mapping"
    )


def _describe_items(variable: str, protocol: str, known_items: Mapping[str, Set[int]]) -> str:
    """Return which items of a variable no dictionary holds, or all that have no dictionary."""
    index = [v.name for v in variables()].index(variable)
    table = item_map(protocol).filter(pl.col("variable") == index)
    parts, unchecked = [], []
    for source, dictionary in ITEM_TABLES.items():
        items = table.filter(pl.col("source") == source)["itemid"].to_list()
        if source not in known_items:
            unchecked += items
        elif unknown := [str(item) for item in items if item not in known_items[source]]:
            parts.append(f"not in {dictionary.pattern}: {', '.join(unknown)}")
    if unchecked:
        parts.append(f"items {', '.join(map(str, unchecked))}")
    return "; ".join(parts) or "its items are in the release"
