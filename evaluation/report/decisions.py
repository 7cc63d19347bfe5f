"""Acting on predictions: net benefit, and the rates of methods and groups of patients at thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from evaluation.layout import cell
from evaluation.names import CALIBRATIONS
from evaluation.plots.decision import COLUMNS as DECISION_COLUMNS
from evaluation.report.charts import Chart, Line
from evaluation.report.elements import Cell, Row, Table
from evaluation.results import read_table
from evaluation.thresholds import ALL, GAPS, RATES
from evaluation.thresholds import COLUMNS as THRESHOLD_COLUMNS

RATE_TITLES = {"ppv": "PPV", "npv": "NPV", "alert_rate": "alerts"}
RULE_TITLES = {"youden": "Youden's index", "sensitivity": "sensitivity of", "alerts": "alerts for at most"}
THRESHOLD_TEXT = ("split", "label", "rule", "variable", "group", "metric", "note")
VARIANTS = {"": "", **{f"_{way}": f", after {title}" for way, title in CALIBRATIONS.items()}}
OVER_SEEDS = {
    "value": "mean",
    "low": "mean",
    "high": "mean",
    "n": "first",
    "positives": "first",
    "subjects": "first",
}
SHOWN = ("threshold", "net_benefit", "net_benefit_low", "net_benefit_high")
TOO_SMALL = "too small"


class Method(NamedTuple):
    """A method, and the folders of its runs, which differ in their seed alone; None: not found."""

    title: str
    line: str  # its name beside those of the other methods
    seeds: Sequence[int]
    folders: Sequence[Path | None]


@dataclass(frozen=True)
class Decisions:
    """Makes charts and tables of what evaluation.decision and evaluation.thresholds wrote for methods.

    The methods are those on the same samples, the best first. `notes` gets what cannot be read.
    """

    methods: Sequence[Method]
    split: str
    synthetic: bool
    most: int  # methods that are shown
    notes: list[str]

    def charts(self) -> Iterator[Chart]:
        """Yield the decision curves, a chart for each kind of probabilities that there are files of."""
        for variant, after in VARIANTS.items():
            found = self.read(f"decision_{self.split}{variant}.csv", DECISION_COLUMNS, ("label",))
            if found:
                yield self.chart(found, after)

    def chart(self, found: Mapping[int, Sequence[pd.DataFrame]], after: str) -> Chart:
        """Return the decision curves of the methods in `found`, the mean over seeds of each."""
        curves = {m: curve_over_seeds(tables) for m, tables in found.items()}
        lines = [
            Line(
                self.methods[m].line,
                *(
                    curve[n].tolist()
                    for n in ("threshold", "net_benefit", "net_benefit_low", "net_benefit_high")
                ),
            )
            for m, curve in curves.items()
        ]
        first = next(iter(curves.values()))
        lines.append(Line("act for all", first["threshold"].tolist(), first["treat_all"].tolist()))
        highest = max(float(curve["net_benefit_high"].max()) for curve in curves.values())
        highest = max(highest, float(first["treat_all"].max()), 0.01)
        return Chart(
            f"Decision curves{after}, {self.count(found)}", "threshold probability", "net benefit", lines,
            (0, 1), (-0.25 * highest, 1.08 * highest), with_marks=False, level=(0.0, "act for none"),
            synthetic=self.synthetic, is_clipped=True,
        )  # fmt: skip

    def tables(self) -> tuple[list[Table], list[Table]]:
        """Return tables of the rates of all methods and of the gaps between groups, and those of groups."""
        found = self.read(f"thresholds_{self.split}.csv", THRESHOLD_COLUMNS, THRESHOLD_TEXT)
        if not found:
            return [], []
        last = {m: [of_last_label(table) for table in tables] for m, tables in found.items()}
        whole = {m: [table[table["group"] == ALL] for table in tables] for m, tables in last.items()}
        best = next(iter(found))
        of_groups = rates_over_seeds({best: last[best]})
        groups = [
            self.group_table(best, str(rule), part)
            for rule, part in of_groups.groupby("rule", sort=False)
            if (part["variable"] != "").any()
        ]
        return [self.method_table(whole), *self.gap_table(best, of_groups)], groups

    def method_table(self, found: Mapping[int, Sequence[pd.DataFrame]]) -> Table:
        """Return the rates of all patients, a row for each method and rule."""
        rows = []
        for (m, rule), part in rates_over_seeds(found).groupby(["method", "rule"], sort=False):
            method = self.methods[m]
            cells = [Cell(method.title), Cell(rule_title(str(rule))), Cell(thresholds_text(part))]
            rows.append(Row([*cells, *rate_cells(part)], method.title, method.seeds))
        columns = ["method", "chosen by", "threshold", *map(rate_title, RATES)]
        legend = [
            "Thresholds were chosen on the validation split. Rates are means over seeds, with the mean of "
            "the 95 % intervals over subjects; alerts are the part of the samples at or above the threshold."
        ]
        return Table(
            "Rates of all patients", columns, rows, [False, False, *(True for _ in columns[2:])], legend
        )

    def gap_table(self, best: int, mean: pd.DataFrame) -> Iterator[Table]:
        """Yield the gaps between the groups of the best method, if it has groups."""
        gaps = mean[mean["metric"].isin(GAPS)]
        rows = []
        for (rule, variable), part in gaps.groupby(["rule", "variable"], sort=False):
            cells = [Cell(rule_title(str(rule))), Cell(str(variable))]
            by_metric = {row["metric"]: row for row in part.to_dict("records")}
            for gap in GAPS:
                row = by_metric.get(gap)
                if row is None or math.isnan(row["value"]):
                    cells += [Cell("no gap"), Cell("")]
                else:
                    cells += [Cell.score(row["value"], row["low"], row["high"]), Cell(row["note"])]
            rows.append(Row(cells))
        if rows:
            columns = ["chosen by", "groups by"]
            columns += [part for rate in GAPS.values() for part in (f"gap in {rate}", "worst and best group")]
            legend = [
                "Differences of sensitivity (the true positive rate) and of specificity (1 less the false "
                "positive rate) between the best and the worst group, with 95 % intervals. Where seeds "
                "differ in these groups, all are named.",
                *(note for note in dict.fromkeys(gaps["note"]) if note.startswith("no gap")),
            ]
            yield Table(f"Gaps between groups: {self.methods[best].title}", columns, rows,
                        [False, False, True, False, True, False], legend)  # fmt: skip

    def group_table(self, best: int, rule: str, mean: pd.DataFrame) -> Table:
        """Return the rates of the groups of the best method at the thresholds of a rule."""
        rows = []
        part = mean[mean["metric"].isin(RATES)]
        for (variable, group), of_group in part.groupby(["variable", "group"], sort=False):
            first = of_group.iloc[0]
            counts = [Cell(f"{int(first[n]):,}", f"{int(first[n])}") for n in ("subjects", "n", "positives")]
            rows.append(Row([Cell(str(variable)), Cell(str(group)), *counts, *rate_cells(of_group)]))
        columns = ["of", "subgroup", "subjects", "known labels", "positive", *map(rate_title, RATES)]
        small = [note for note in dict.fromkeys(part["note"]) if note.startswith(TOO_SMALL)]
        title = f"Rates of groups at thresholds by {rule_title(rule)}: {self.methods[best].title}"
        return Table(title, columns, rows, [False, False, *(True for _ in columns[2:])], small)

    def read(self, name: str, columns: Sequence[str], text: Sequence[str]) -> dict[int, list[pd.DataFrame]]:
        """Return the tables of all runs of the first methods of which all runs have one, by their number."""
        found: dict[int, list[pd.DataFrame]] = {}
        missing = []
        for number, method in enumerate(self.methods):
            if len(found) == self.most:
                break
            paths = [folder / name for folder in method.folders if folder and (folder / name).is_file()]
            try:
                if len(paths) == len(method.folders):
                    found[number] = [read_table(path, columns, text) for path in paths]
                else:
                    missing.append(method.title)
            except ValueError as error:
                self.notes.append(str(error))
        if found and missing:
            self.notes.append(f"not all runs have a {name}: {'; '.join(dict.fromkeys(missing))}")
        return found

    def count(self, found: Mapping[int, object]) -> str:
        """Return how many of the methods are shown."""
        if len(found) == len(self.methods):
            return "all methods" if len(found) > 1 else "the only method"
        return f"{len(found)} of {len(self.methods)} methods"


def of_last_label(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last label, which is the mean over labels where there are several."""
    return table[table["label"] == table["label"].iloc[-1]]


def curve_over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the decision curve of the mean over labels, or of the only label: the mean over tables."""
    parts = [of_last_label(table) for table in tables]
    numbers = [name for name in DECISION_COLUMNS if name != "label"]
    return pd.concat(parts)[numbers].groupby("threshold", as_index=False).mean()


def rates_over_seeds(found: Mapping[int, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """Return rates and gaps of one label, by method: the mean over its tables, of what all of them have.

    `note` has all their notes, `lowest` and `highest` the thresholds.
    """
    parts = [table.assign(method=m) for m, tables in found.items() for table in tables]
    by_key = pd.concat(parts, ignore_index=True).groupby(
        ["method", "rule", "variable", "group", "metric"], sort=False, dropna=False
    )
    mean = by_key.agg(
        **{name: (name, how) for name, how in OVER_SEEDS.items()},
        lowest=("threshold", "min"),
        highest=("threshold", "max"),
        note=("note", lambda notes: "; ".join(dict.fromkeys(notes))),
        tables=("metric", "size"),
    ).reset_index()
    return mean[mean["tables"] == mean["method"].map({m: len(tables) for m, tables in found.items()})]


def rate_cells(part: pd.DataFrame) -> Iterator[Cell]:
    """Yield the cells of the rates of a group; without a value they say why."""
    by_metric = {row["metric"]: row for row in part.to_dict("records")}
    for name in RATES:
        row = by_metric.get(name)
        if row is None:
            yield Cell("")
        elif math.isnan(row["value"]):
            yield Cell(TOO_SMALL if row["note"].startswith(TOO_SMALL) else "no value")
        else:
            yield Cell(cell(row["value"], row["low"], row["high"]), repr(float(row["value"])))


def rate_title(name: str) -> str:
    """Return the name of a rate for readers."""
    return RATE_TITLES.get(name, name)


def rule_title(rule: str) -> str:
    """Return a rule for readers.

    >>> rule_title("youden"), rule_title("alerts=0.1"), rule_title("mine=a")
    ("Youden's index", 'alerts for at most 10 %', 'mine=a')
    """
    name, _, value = rule.partition("=")
    if name not in RULE_TITLES:
        return rule
    try:
        return f"{RULE_TITLES[name]} {100 * float(value):g} %" if value else RULE_TITLES[name]
    except ValueError:
        return rule


def thresholds_text(part: pd.DataFrame) -> str:
    """Return the threshold of some rows, from the lowest to the highest over seeds; "by label" for a mean."""
    lowest, highest = part["lowest"].min(), part["highest"].max()
    if math.isnan(lowest):
        return "by label"
    ends = dict.fromkeys(f"{value:.3f}" for value in (lowest, highest))
    return " to ".join(ends)
