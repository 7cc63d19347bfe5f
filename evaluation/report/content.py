"""What the page shows of each task: tables with marks, charts, subgroups, the cohort, and notes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from evaluation.compare import KINDS, SIGNIFICANT
from evaluation.layout import DAGGER, Mark, columns_that_tell, common_values
from evaluation.marks import best_and_like
from evaluation.names import DETAILS, SUBGROUP, data_notice, metric_of, title_of
from evaluation.paper import COMPARABLE
from evaluation.plots.labels import LINE, by_fraction, names_that_tell
from evaluation.plots.robustness import ALONE, tested
from evaluation.report.charts import Bar, Chart, Line, Tick, span
from evaluation.report.decisions import Decisions, Method
from evaluation.report.elements import Cell, Row, Table
from evaluation.report.sources import RunKey, Sources, StoreCard, keys_of
from evaluation.roc_curves import GRID
from evaluation.row_notes import explain_settings
from evaluation.seeds import CONTEXT, GROUP, METHOD, RUN, over_seeds, select_counted
from evaluation.subgroups import SMALLEST_GROUP
from evaluation.summaries import Summary
from tasks import TASKS

MOST_LINES = 6  # of a chart: more can hardly be distinguished
WITHIN = [*CONTEXT[:-1], "classifiers"]  # what rows of a table may differ in, besides method and settings
NO_VALUE = f"No value: fewer than {SMALLEST_GROUP} subjects, or one class, of which no known label counts."
LIKE_BEST = f"{DAGGER} not significantly worse than the best (paired bootstrap, p {SIGNIFICANT} or more)."
COLUMN_TITLES = {
    "data_pairs": "samples", "n": "known labels", "group": "checkpoint", "ehr_encoder": "record encoder",
    "vision_backbone": "image encoder", "cxr_weights": "first image weights",
    "classifiers": "classifier that was tested",
}  # fmt: skip
FRACTION = "label_fraction"  # column of runs that learned from a fraction of the labels


@dataclass(frozen=True)
class Block:
    """The methods that are scored on the same samples."""

    title: str
    kind: str  # of the data: real, synthetic, ...
    table: Table
    charts: Sequence[Chart]
    calibration: Sequence[Table]  # further scores of calibration, if there are some
    subgroups: Sequence[Table]
    rates: Sequence[Table]  # at thresholds: of the methods, and gaps between groups
    group_rates: Sequence[Table]  # at thresholds, of groups of patients


@dataclass(frozen=True)
class TaskSection:
    """All that the page shows of a task."""

    name: str
    title: str
    kinds: Sequence[str]
    blocks: Sequence[Block]
    labels: Sequence[Chart]  # scores by the fraction of labels
    robustness: Sequence[Chart]
    cohorts: Sequence[tuple[str, StoreCard]]  # by the store's hash
    notes: Sequence[str]

    @property
    def notice(self) -> str:
        """What the data are."""
        return data_notice(self.kinds)


@dataclass
class TaskContent:
    """Makes the section of a task from the rows of a split, of all labels."""

    name: str
    split: str
    rows: pd.DataFrame
    sources: Sources
    robustness: pd.DataFrame | None
    notes: list[str] = field(default_factory=list)
    run_marks: dict[RunKey, Mark] = field(default_factory=dict)  # of their methods, by the main score

    def __post_init__(self) -> None:
        chosen = self.rows[self.rows["label"] == "macro"]
        is_part = chosen[FRACTION].fillna(1.0) != 1.0
        if is_part.any():
            runs = len(chosen[is_part].drop_duplicates(RUN))
            self.notes.append(
                f"{runs} runs that learned from a part of the labels are under Few labels alone"
            )
        chosen = chosen[~is_part]
        counted, lines = select_counted(chosen)
        self.notes += lines
        self.counted = counted.assign(method=counted.groupby(GROUP, dropna=False, sort=False).ngroup())
        self.means = over_seeds(counted) if len(counted) else pd.DataFrame()

    @cached_property
    def metrics(self) -> list[str]:
        """The scores, the one that chooses epochs first."""
        found = dict.fromkeys(self.rows.loc[self.rows["label"] == "macro", "metric"])
        known = [name for name in found if name not in DETAILS] or list(found)
        monitor = TASKS[self.name].monitor if self.name in TASKS else ""
        return sorted(known, key=lambda name: name != monitor)

    @property
    def main(self) -> str:
        """The score that charts show."""
        return self.metrics[0]

    @cached_property
    def scores(self) -> dict[tuple[int, str], Mapping[str, float]]:
        """The means by method and metric."""
        number = self.means.groupby(GROUP, dropna=False, sort=False).ngroup()
        rows = self.means.assign(method=number).to_dict("records")
        return {(row["method"], row["metric"]): row for row in rows}

    @cached_property
    def methods(self) -> pd.DataFrame:
        """A row per method, by what must be equal to be compared, then the best first."""
        methods = self.means.drop_duplicates(GROUP)[[*GROUP, "n", "positives", "seeds", "classifiers"]]
        methods = methods.reset_index(drop=True)
        methods = methods.astype({"n": "Int64", "positives": "Int64"})
        methods["score"] = [self.scores[m, self.main]["mean"] if (m, self.main) in self.scores else math.nan
                            for m in methods.index]  # fmt: skip
        methods["title"] = [method_title(row) for row in methods[METHOD].itertuples(index=False)]
        return methods.sort_values(
            "score", ascending=not metric_of(self.main).higher_is_better, kind="stable"
        )

    def runs_of(self, method: int) -> list[RunKey]:
        """Return the runs of a method, by seed."""
        return self._runs[method]

    @cached_property
    def _runs(self) -> dict[int, list[RunKey]]:
        runs = self.counted.drop_duplicates(RUN).sort_values("seed", kind="stable")
        found: dict[int, list[RunKey]] = {}
        for method, *key in runs[["method", *RUN]].itertuples(index=False):
            found.setdefault(method, []).append(RunKey(*map(str, key)))
        return found

    def seeds_of(self, method: int) -> list[int]:
        """Return the seeds of a method."""
        return self._seeds[method]

    @cached_property
    def _seeds(self) -> dict[int, list[int]]:
        seeds = self.counted.groupby("method")["seed"].unique()
        return {
            method: sorted(int(seed) for seed in of if not math.isnan(seed)) for method, of in seeds.items()
        }

    @cached_property
    def summaries(self) -> dict[int, list[Summary]]:
        """The summaries of all runs of each method, if all have one of the same samples."""
        found: dict[int, list[Summary]] = {}
        missing = []
        for method in self.methods.index:
            read = [self.sources.summary(key, self.split) for key in self.runs_of(method)]
            known = [summary for summary in read if summary is not None]
            if len(known) == len(read) and len({summary.samples for summary in known}) == 1:
                found[method] = known
            else:
                missing.append(self.methods.loc[method, "title"])
        if missing:
            names = "; ".join(dict.fromkeys(missing))
            self.notes.append(
                f"not compared with the best, and not in curves: {names}: no predictions of all runs, on the "
                "same samples, in --save_dir"
            )
        return found

    def resampled(self, methods: Sequence[int], metric: str) -> dict[int, np.ndarray]:
        """Return the mean score over runs in each resample [R], of the methods on the same samples."""
        found: dict[int, np.ndarray] = {}
        first: Summary | None = None
        for method in methods:
            runs = self.summaries.get(method, [])
            drawn = [run.resampled[metric] for run in runs if metric in run.resampled]
            if not drawn or len(drawn) < len(runs):
                continue
            first = first or runs[0]
            sizes = {len(values) for values in (*drawn, first.resampled.get(metric, drawn[0]))}
            if runs[0].samples == first.samples and len(sizes) == 1:
                found[method] = np.mean(drawn, axis=0)
        return found

    def section(self) -> TaskSection:
        """Return the section."""
        blocks = []
        if len(self.means):
            for _, methods in self.methods.groupby(COMPARABLE, dropna=False, sort=False):
                blocks.append(self.block(methods))
        kinds = [*dict.fromkeys(self.rows["data"])]
        if self.robustness is not None and not len(self.rows):
            kinds = [KINDS.get(text, "") for text in dict.fromkeys(self.robustness["data"])]
        cohorts = list(self.cohorts())
        return TaskSection(
            self.name, title_of(self.name), kinds, blocks, list(self.label_charts()),
            list(self.robustness_charts()), cohorts, list(dict.fromkeys(self.notes)),
        )  # fmt: skip

    def block(self, methods: pd.DataFrame) -> Block:
        """Return what is shown of the methods on the same samples."""
        first = methods.iloc[0]
        known = (
            [] if pd.isna(first["n"]) else [f"{first['n']:,} known labels, {first['positives']:,} positive"]
        )
        title = ", ".join([f"{first['data'] or 'unknown'} data", f"store {first['store']}", *known])
        charts = [
            *self.curve_charts(methods),
            *self.calibration_chart(methods),
            *self.decisions(methods).charts(),
            *self.learning_charts(methods),
        ]
        subgroups = list(self.subgroup_tables(methods))
        calibration = list(self.calibration_tables(methods))
        table = self.method_table(methods)
        rates, group_rates = self.decisions(methods).tables()
        return Block(title, first["data"], table, charts, calibration, subgroups, rates, group_rates)

    def decisions(self, methods: pd.DataFrame) -> Decisions:
        """Return what makes the charts and tables of thresholds of some methods."""
        names = self.line_names(methods)
        found = []
        for method, title in methods["title"].items():
            records = [self.sources.record(key) for key in self.runs_of(method)]
            folders = [record.folder if record else None for record in records]
            found.append(Method(title, names[method], self.seeds_of(method), folders))
        return Decisions(found, self.split, _is_synthetic(methods), MOST_LINES, self.notes)

    def method_table(self, methods: pd.DataFrame) -> Table:
        """Return the table of methods, with marks and a bar of the main score."""
        order = list(methods.index)
        marks: dict[tuple[int, str], Mark] = {}
        for metric in self.metrics:
            known = {m: self.scores[m, metric] for m in order if (m, metric) in self.scores}
            values = {m: score["mean"] for m, score in known.items() if score["seeds"]}
            if len(order) > 1:
                drawn = self.resampled(order, metric)
                subjects = max((self.summaries[m][0].subjects for m in drawn), default=0)
                found = best_and_like(values, drawn, subjects, metric_of(metric).higher_is_better)
                marks |= {(method, metric): mark for method, mark in found.items()}
        self.run_marks |= {
            key: mark for (m, metric), mark in marks.items() if metric == self.main for key in self.runs_of(m)
        }
        shown = columns_that_tell(methods, METHOD, WITHIN, ["settings", "group"], outcomes=["n"])
        methods, explained = explain_settings(methods, self.counted, shown)
        self.notes += explained
        shown = [name for name in dict.fromkeys([*shown, "seeds"]) if name not in (*METHOD, *COMPARABLE)]
        scale = self.scale(order)
        best = methods["score"].iloc[0]
        rows = []
        for method, row in methods.iterrows():
            cells = [Cell(row["title"])]
            for metric in self.metrics:
                score = self.scores.get((method, metric))
                if score is None:
                    cells.append(Cell(""))
                    continue
                numbers = score["mean"], score["low"], score["high"]
                bar = Bar(*numbers, scale, best) if metric == self.main and _finite(score["mean"]) else None
                cells.append(Cell.score(*numbers, marks.get((method, metric)), bar))
            cells += [Cell(_text(row[name])) for name in shown]
            rows.append(Row(cells, row["title"], self.seeds_of(method)))
        titles = [metric_of(name).title for name in self.metrics]
        columns = ["method", *titles, *map(column_title, shown)]
        numeric = [False, *(True for _ in titles), *(name == "seeds" for name in shown)]
        legend = [
            "Mean over seeds, with the mean of the 95 % intervals over subjects.",
            *(["best: the best of its column."] if "best" in marks.values() else []),
            *([LIKE_BEST] if "like best" in marks.values() else []),
            f"Bars: {metric_of(self.main).title} with its interval, from {scale[0]:.2f} to {scale[1]:.2f}; "
            "dotted: the best.",
            *(f"{line[0].upper()}{line[1:]}." for line in common_values(methods, [*WITHIN, "n"])),
        ]  # fmt: skip
        return Table(f"{metric_of(self.main).title} and other scores", columns, rows, numeric, legend)

    def scale(self, methods: Sequence[int]) -> tuple[float, float]:
        """Return the range of the bars of some methods."""
        shown = [self.scores[m, self.main] for m in methods if (m, self.main) in self.scores]
        values = [score[name] for score in shown for name in ("mean", "low", "high")]
        low, high = span(values, 0.05)
        possible = metric_of(self.main)
        return max(low, possible.low), min(high, possible.high)

    def first_methods(self, methods: pd.DataFrame) -> list[int]:
        """Return the best methods, as many as a chart may show."""
        return list(methods.index[:MOST_LINES])

    def line_names(self, methods: pd.DataFrame) -> dict[int, str]:
        """Return the name of each method's line: what tells it from the others."""
        shown = [name for name in METHOD if methods[name].nunique() > 1] or METHOD
        details = columns_that_tell(methods, shown, [], [*CONTEXT[:-1], "settings", "group"])

        def name_of(row: pd.Series) -> str:
            texts = ((name, _text(row[name])) for name in details)
            return " · ".join(dict.fromkeys(title_of(t) if name in METHOD else t for name, t in texts))

        return {method: name_of(row) for method, row in methods.iterrows()}

    def curve_charts(self, methods: pd.DataFrame) -> Iterator[Chart]:
        """Yield ROC and precision-recall curves: means over labels, and over seeds."""
        names = self.line_names(methods)
        for area, x_label, y_label, diagonal in (
            ("AUROC", "false positive rate", "true positive rate (sensitivity)", "chance"),
            ("AUPRC", "recall (sensitivity)", "precision (PPV)", ""),
        ):
            lines = []
            for method in self.first_methods(methods):
                runs = self.summaries.get(method, [])
                if runs and all(area in run.curves for run in runs):
                    heights = np.mean([run.curves[area] for run in runs], axis=0)
                    lines.append(Line(names[method], GRID.tolist(), heights.tolist()))
            if lines:
                title = "ROC curves" if area == "AUROC" else "Precision-recall curves"
                yield Chart(
                    f"{title}, {self._count(lines, methods)}", x_label, y_label, lines, (0, 1), (0, 1),
                    diagonal=diagonal, with_marks=False, synthetic=_is_synthetic(methods),
                )  # fmt: skip

    def calibration_chart(self, methods: pd.DataFrame) -> Iterator[Chart]:
        """Yield the reliability diagram, of the predictions of all seeds."""
        names, lines = self.line_names(methods), []
        for method in self.first_methods(methods):
            if runs := self.summaries.get(method, []):
                count, probability, positives = np.sum([run.reliability for run in runs], axis=0).T
                known = count > 0
                x, y = probability[known] / count[known], positives[known] / count[known]
                lines.append(Line(names[method], x.tolist(), y.tolist()))
        if lines:
            yield Chart(
                f"Calibration, {self._count(lines, methods)}", "mean predicted probability",
                "fraction of positives", lines, (0, 1), (0, 1), diagonal="perfect calibration",
                synthetic=_is_synthetic(methods),
            )  # fmt: skip

    def calibration_tables(self, methods: pd.DataFrame) -> Iterator[Table]:
        """Yield the scores of calibrated probabilities, beside those of the methods' own."""
        known = {metric for _, metric in self.scores}
        details = [name for name in DETAILS if name in known]
        if not details:
            return
        shown = [name for name in ("brier", "ece") if name in known] + details
        rows = []
        for method, row in methods.iterrows():
            found = (self.scores.get((method, metric)) for metric in shown)
            cells = [Cell.score(s["mean"], s["low"], s["high"]) if s else Cell("") for s in found]
            rows.append(Row([Cell(row["title"]), *cells], row["title"], self.seeds_of(method)))
        columns = ["method", *(metric_of(name).title for name in shown)]
        legend = ["Scaling and regression were fitted on the validation split."]
        yield Table("Calibration", columns, rows, [False, *(True for _ in shown)], legend)

    def learning_charts(self, methods: pd.DataFrame) -> Iterator[Chart]:
        """Yield the main score of the validation split by epoch, of the lowest seed of each method."""
        names, lines = self.line_names(methods), []
        for method in self.first_methods(methods):
            key = self.runs_of(method)[0]
            record = self.sources.record(key)
            log = record.log() if record else []
            if log and self.main in log[0]:
                epochs, values = zip(
                    *((_number(r["epoch"]), _number(r[self.main])) for r in log), strict=True
                )
                lines.append(Line(names[method], epochs, values))
        if lines:
            yield Chart(
                f"Learning curves, lowest seed, {self._count(lines, methods)}", "epoch",
                f"{metric_of(self.main).title} of the validation split", lines,
                with_marks=False, synthetic=_is_synthetic(methods),
            )  # fmt: skip

    def _count(self, lines: Sequence[Line], methods: pd.DataFrame) -> str:
        if len(lines) == len(methods):
            return "all methods" if len(lines) > 1 else "the only method"
        return f"{len(lines)} of {len(methods)} methods, the best by {metric_of(self.main).title}"

    @cached_property
    def subgroup_means(self) -> pd.DataFrame:
        """The means of subgroups and gaps over seeds, of the runs that are counted."""
        part = self.rows[self.rows["label"].str.startswith("macro[")]
        runs = self.counted[[*RUN, "group", "method", "classifiers"]].drop_duplicates(RUN)
        part = part.merge(runs, on=RUN)
        if part.empty:
            return part
        means = over_seeds(part, ("method", "label", "metric"))
        return means

    def subgroup_tables(self, methods: pd.DataFrame) -> Iterator[Table]:
        """Yield the scores of the subgroups of the best method, and the gaps of all methods."""
        means = self.subgroup_means
        if means.empty:
            return
        means = means[means["method"].isin(methods.index)]
        names = means["label"].str.extract(SUBGROUP)
        means = means.assign(variable=names[0], subgroup=names[1])
        main, title = self.main, metric_of(self.main).title
        with_groups = [m for m in methods.index if (means["method"] == m).any()]
        if not with_groups:
            return
        best = with_groups[0]
        of_best = means[(means["method"] == best) & (means["metric"] == main) & means["variable"].notna()]
        if len(of_best):
            scale = span([v for name in ("mean", "low", "high") for v in of_best[name]], 0.05)
            rows = [
                Row([
                    Cell(row["variable"]), Cell(row["subgroup"]), _count_cell(row["n"]),
                    _count_cell(row["positives"]), _group_cell(row, scale),
                ])
                for row in of_best.to_dict("records")
            ]  # fmt: skip
            yield Table(
                f"{title} of subgroups: {methods.loc[best, 'title']}",
                ["of", "subgroup", "known labels", "positive", title], rows,
                [False, False, True, True, True],
                [NO_VALUE] if of_best["mean"].isna().any() else [],
            )  # fmt: skip
        gaps = means[means["variable"].isna() & means["metric"].str.endswith("_gap")]
        shown = list(dict.fromkeys(gaps["metric"]))
        shown = [name for name in shown if name == f"{main}_gap" or name.startswith(("tpr_", "fpr_"))]
        for metric in shown:
            part = gaps[gaps["metric"] == metric]
            variables = list(dict.fromkeys(part["label"]))
            by_key = {(row["method"], row["label"]): row for row in part.to_dict("records")}
            rows = []
            for method in with_groups:
                found = [by_key.get((method, label)) for label in variables]
                cells = [Cell.score(r["mean"], r["low"], r["high"]) if r else Cell("") for r in found]
                rows.append(Row([Cell(methods.loc[method, "title"]), *cells], methods.loc[method, "title"],
                                self.seeds_of(method)))  # fmt: skip
            columns = ["method", *(label.removeprefix("macro[").removesuffix("]") for label in variables)]
            legend = ["The difference between the best and the worst subgroup, with its 95 % interval."]
            yield Table(f"{metric_of(metric).title}s between subgroups", columns, rows,
                        [False, *(True for _ in variables)], legend)  # fmt: skip

    def label_charts(self) -> Iterator[Chart]:
        """Yield the main score by the fraction of labels, a chart for each store and choice of samples."""
        macro = self.rows[(self.rows["label"] == "macro") & (self.rows["metric"] == self.main)]
        if macro.empty or macro[FRACTION].nunique() < 2:
            return
        table = by_fraction(select_counted(macro).rows)
        title = metric_of(self.main).title
        for key, part in table.groupby(["data", "store", "data_pairs"], sort=False, dropna=False):
            telling = names_that_tell(part)
            found = list(part.groupby(LINE, sort=False, dropna=False))
            order = [float(line["value"].iloc[-1]) for _, line in found]
            is_better = metric_of(self.main).higher_is_better
            best = sorted(range(len(found)), key=lambda k: order[k], reverse=is_better)[:MOST_LINES]
            lines = []
            for number in best:
                line = found[number][1].sort_values(FRACTION)
                first = line.iloc[0]
                name = " · ".join(dict.fromkeys(title_of(_text(first[of])) for of in telling))
                numbers = (line[of].tolist() for of in (FRACTION, "value", "low", "high"))
                lines.append(Line(name, *numbers))
            fractions = sorted(part[FRACTION].unique())
            shown = "all methods" if len(lines) == len(found) else f"{len(lines)} of {len(found)} methods"
            yield Chart(
                f"Few labels, {key[2]} samples, {shown}", "training subjects with labels", title, lines,
                (fractions[0] / 1.15, fractions[-1] * 1.15), logarithmic=True, synthetic=key[0] != "real",
                x_ticks=[Tick(of, f"{100 * of:g} %") for of in fractions],
            )  # fmt: skip

    def robustness_charts(self) -> Iterator[Chart]:
        """Yield the score by the fraction of X-rays that are missing, a chart for each fusion."""
        table = self.robustness
        if table is None:
            return
        values = [value for name in ("low", "high", "value") for value in table[name]]
        is_synthetic = any(KINDS.get(text, "") != "real" for text in table["data"])
        fusions = [fusion for fusion in dict.fromkeys(table["fusion"]) if fusion != ALONE] or [ALONE]
        alone = table[(table["fusion"] == ALONE) & (table["rate"] == 0) & (table["tested_on"] == "all")]
        for fusion in fusions:
            lines = [
                Line(
                    f"trained on {trained_on} stays, {tested(tested_on)}", *(
                        part[name].tolist() for name in ("rate", "value", "low", "high")
                    )
                )
                for (trained_on, tested_on), part in table[table["fusion"] == fusion].groupby(
                    ["trained_on", "tested_on"], sort=False
                )
            ]  # fmt: skip
            rates = sorted({x for line in lines for x in line.x})
            yield Chart(
                f"X-rays missing: {title_of(fusion)}", "X-rays missing",
                metric_of(table["metric"].iloc[0]).title, lines, (0, 1), span(values, 0.05),
                [Tick(rate, f"{rate:.0%}") for rate in rates[:: math.ceil(len(rates) / 6)]],
                level=(float(alone["value"].iloc[0]), "EHR alone, all test stays") if len(alone) else None,
                synthetic=is_synthetic,
            )  # fmt: skip

    def cohorts(self) -> Iterator[tuple[str, StoreCard]]:
        """Yield the stores of the rows; a note for each that is not found."""
        for store, rows in self.rows.groupby("store", sort=False):
            if not store:
                continue
            card = self.sources.card(self.name, str(store), keys_of(rows))
            if card is None:
                self.notes.append(
                    f"no flow of the cohort of store {store}: no folder holds it; give it as --store"
                )
            else:
                yield str(store), card


def method_title(method: Iterable[str]) -> str:
    """Return a method, METHOD, in words.

    >>> method_title(["finetune", "ehr", "simclr"]), method_title(["supervised", "ehr", "supervised"])
    ('fine-tuning · EHR only · SimCLR', 'supervised · EHR only')
    """
    return " · ".join(dict.fromkeys(title_of(str(part)) for part in method))


def column_title(name: str) -> str:
    """Return what the page calls a column of the results."""
    return COLUMN_TITLES.get(name, name.replace("_", " "))


def _text(value: object) -> str:
    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _finite(value: float) -> bool:
    return math.isfinite(value)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _count_cell(value: float) -> Cell:
    return Cell("" if math.isnan(value) else f"{int(value):,}", "" if math.isnan(value) else f"{int(value)}")


def _group_cell(row: Mapping[str, float], scale: tuple[float, float]) -> Cell:
    if math.isnan(row["mean"]):
        return Cell("no value")
    numbers = row["mean"], row["low"], row["high"]
    return Cell.score(*numbers, bar=Bar(*numbers, scale))


def _is_synthetic(methods: pd.DataFrame) -> bool:
    return bool((methods["data"] != "real").any())
