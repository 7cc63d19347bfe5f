"""Thresholds chosen on validation, and what they do to groups: `python -m evaluation.thresholds RUN`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro

from datasets.store import Store
from evaluation import bootstrap
from evaluation.bootstrap import Resamples, Subjects
from evaluation.compare import data_kind
from evaluation.debias import sizes_in_resamples, spread_of
from evaluation.layout import Page, cell, render
from evaluation.metrics import quotient
from evaluation.names import data_notice
from evaluation.predictions import LabelledScores, by_label
from evaluation.subgroups import SMALLEST_GROUP, UNKNOWN, missing_variables, parse_subgroups, subgroups_of
from utils.cli import run_cli
from utils.files import atomic_write
from utils.yaml_files import read_yaml_mapping

ALL = "all"
MEAN = "macro"  # mean over labels
CELLS = 4  # of a confusion matrix: true negatives, false positives, false negatives, true positives
RATES = ("sensitivity", "specificity", "ppv", "npv", "alert_rate")
COLUMNS = (
    "split", "label", "rule", "threshold", "variable", "group", "metric", "value", "low", "high", "n",
    "positives", "subjects", "note",
)  # fmt: skip
GAPS = {"tpr_gap": "sensitivity", "fpr_gap": "specificity"}  # the rate whose lowest value is the worst


@dataclass(frozen=True)
class Thresholds:
    """Choose thresholds on the validation split, and score the test split and its groups at them.

    Gaps of the true and of the false positive rate are between the best and the worst group, which is named.
    Writes thresholds_<split>.csv into the folder of the run, and prints the mean over labels.
    """

    run: tyro.conf.Positional[Path]
    """Folder of a run of run_gpu.py, with its predictions of both splits."""
    rules: str = "youden,sensitivity=0.9,alerts=0.1"
    """How thresholds are chosen, separated by commas. youden: the largest sensitivity + specificity - 1;
    sensitivity=0.9: the highest threshold that finds 90 % of the positives; alerts=0.1: the lowest threshold
    that alerts for at most 10 % of the samples."""
    subgroups: str = "age,sex,race,sex+race,admission,unit,years,has_xray"
    """Groups of patients, separated by commas; sex+race is an intersection. Those that the store does not
    have are named, and left out."""
    smallest: int = SMALLEST_GROUP
    """Groups of fewer subjects are shown as too small, and have no value."""
    store: Path | None = None
    """Folder of the store; if not given, that of the run."""
    split: str = "test"
    """Split that is scored; thresholds are always those of val."""
    label: tuple[str, ...] = ()
    """Only these labels; all if none is given."""
    resamples: int = 1000
    """Resamples of the subjects for the 95 % intervals."""
    seed: int = 0
    """Seed of the resamples."""

    def __post_init__(self) -> None:
        parse_rules(self.rules)
        parse_subgroups(self.subgroups)
        if self.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, not {self.resamples}")
        if self.smallest < 1:
            raise ValueError(f"--smallest must be 1 subject or more, not {self.smallest}")


class Rule(NamedTuple):
    """How a threshold is chosen, and for what value."""

    name: str  # youden, sensitivity or alerts
    value: float = math.nan

    def __str__(self) -> str:
        return self.name if math.isnan(self.value) else f"{self.name}={self.value:g}"


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Return the rules in --rules.

    Raises:
        ValueError: a rule is unknown, or its value is not between 0 and 1.

    >>> [str(rule) for rule in parse_rules("youden, alerts=0.10")]
    ['youden', 'alerts=0.1']
    """
    rules = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, _, number = word.partition("=")
        try:
            rule = Rule(name, float(number)) if number else Rule(name)
        except ValueError:
            raise ValueError(f"--rules {text}: {number!r} is no number; write {name}=0.9") from None
        with_value = rule.name in ("sensitivity", "alerts") and 0 < rule.value < 1
        if not with_value and word != "youden":
            raise ValueError(
                f"--rules {text}: {word} must be youden, sensitivity=VALUE or alerts=VALUE, with a value "
                "between 0 and 1"
            )
        rules.append(rule)
    if not rules:
        raise ValueError("--rules is empty; give youden, sensitivity=0.9 or alerts=0.1")
    return tuple(dict.fromkeys(rules))


def choose_threshold(rule: Rule, truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold of a rule, at or above which there is an alert; both [n], truth of both classes.

    It is one of the probabilities, or just above the highest where that already alerts too often. Of several
    that are equally good the highest.

    >>> truth, probability = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    >>> [choose_threshold(rule, truth, probability) for rule in parse_rules("youden,sensitivity=0.9")]
    [0.4, 0.2]
    """
    candidates = np.unique(probability)[::-1]  # from the highest
    order = np.sort(probability), np.sort(probability[truth == 1])
    alerts, hits = (len(part) - np.searchsorted(part, candidates) for part in order)
    positives = len(order[1])
    sensitivity, false_alarms = hits / positives, (alerts - hits) / (len(truth) - positives)
    if rule.name == "youden":
        return float(candidates[np.argmax(sensitivity - false_alarms)])
    if rule.name == "sensitivity":
        return float(candidates[np.argmax(sensitivity >= rule.value)])
    few = alerts / len(truth) <= rule.value
    return float(candidates[few][-1] if few.any() else np.nextafter(candidates[0], np.inf))


class Group(NamedTuple):
    """Some of the samples, and how many subjects they are of."""

    variable: str  # "" for all samples
    name: str
    samples: np.ndarray  # indices
    subjects: int


def make_groups(subgroups: pd.DataFrame, subject: np.ndarray) -> list[Group]:
    """Return all samples, and then the groups of each variable, by name."""
    everyone = np.arange(len(subgroups))
    groups = [Group("", ALL, everyone, len(np.unique(subject)))]
    for variable in subgroups:
        column = subgroups[variable].to_numpy()
        for name in sorted(set(column)):
            samples = everyone[column == name]
            groups.append(Group(str(variable), str(name), samples, len(np.unique(subject[samples]))))
    return groups


def rates(tables: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rates [...] of confusion matrices [..., 4], in the order of CELLS; NaN for 0 / 0."""
    true_negatives, false_alarms, misses, hits = np.moveaxis(tables, -1, 0)
    alerts, quiet = false_alarms + hits, true_negatives + misses
    return {
        "sensitivity": quotient(hits, hits + misses),
        "specificity": quotient(true_negatives, true_negatives + false_alarms),
        "ppv": quotient(hits, alerts),
        "npv": quotient(true_negatives, quiet),
        "alert_rate": quotient(alerts, alerts + quiet),
    }


@dataclass(frozen=True, eq=False)
class RateTable:
    """Rates of G groups for each of L labels and T rules: the values, and those in every resample."""

    values: dict[str, np.ndarray]  # [L, T, G]
    resampled: dict[str, np.ndarray]  # [R, L, T, G]
    n: np.ndarray  # [L, G]
    positives: np.ndarray  # [L, G]
    subjects: np.ndarray  # [3, L + 1, G], with a negative, a positive or either; the last is of any label


def rate_table(
    scores: LabelledScores, thresholds: np.ndarray, groups: Sequence[Group], resamples: Resamples
) -> RateTable:
    """Return the rates of every label at its thresholds [L, T] in every group."""
    values, resampled = [], []
    for label in range(len(scores.labels)):
        own = (_tables(scores, label, threshold, groups, resamples) for threshold in thresholds[label])
        whole, drawn = zip(*own, strict=True)
        values.append(np.stack(whole))
        resampled.append(np.stack(drawn, axis=1))
    tables = np.stack(values)
    n, positives = tables[:, 0].sum(-1), tables[:, 0, :, 2:].sum(-1)
    subjects = _subjects_by_class(scores, groups)
    return RateTable(rates(tables), rates(np.stack(resampled, axis=1)), n, positives, subjects)


def _subjects_by_class(scores: LabelledScores, groups: Sequence[Group]) -> np.ndarray:
    """Return how many subjects have a negative sample, a positive one, or either, as in RateTable."""
    counts = np.zeros((3, len(scores.labels) + 1, len(groups)), np.int64)
    wanted = ((0,), (1,), (0, 1))
    for value, label, group in np.ndindex(counts.shape):
        truth = scores.truth[groups[group].samples]
        columns = truth if label == len(scores.labels) else truth[:, [label]]
        subject = scores.subject_id[groups[group].samples]
        counts[value, label, group] = len(np.unique(subject[np.isin(columns, wanted[value]).any(axis=1)]))
    return counts


def _tables(
    scores: LabelledScores, label: int, threshold: float, groups: Sequence[Group], resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Return the confusion matrices [G, 4] of one label, and those in every resample [R, G, 4]."""
    truth, probability = scores.truth[:, label], scores.probability[:, label]
    known = [group.samples[~np.isnan(truth[group.samples])] for group in groups]
    sample = np.concatenate(known)
    group = np.repeat(np.arange(len(groups)), [len(part) for part in known])
    column = CELLS * group + 2 * (truth[sample] == 1) + (probability[sample] >= threshold)
    width = CELLS * len(groups)
    shape = (-1, len(groups), CELLS)
    drawn = bootstrap.totals(resamples, sample, column, np.ones(len(sample)), width)
    return np.bincount(column, minlength=width).reshape(shape)[0], drawn.reshape(shape)


def score_rows(
    table: RateTable,
    labels: Sequence[str],
    rules: Sequence[Rule],
    thresholds: np.ndarray,
    groups: Sequence[Group],
    smallest: int,
) -> Iterator[dict[str, object]]:
    """Yield a row for each label, rule, group and rate, then the gaps of each variable.

    Of several labels there is also the mean, over those that have a value in every group of the variable that
    is not too small; its threshold is empty.
    """
    names = [*labels, MEAN] if len(labels) > 1 else labels
    variables = list(dict.fromkeys(group.variable for group in groups))
    for rule_index, rule in enumerate(rules):
        for index, label in enumerate(names):
            for variable in variables:
                members = [i for i, group in enumerate(groups) if group.variable == variable]
                compared = [i for i in members if groups[i].subjects >= smallest]
                part = _part(table, rule_index, index if label != MEAN else None, members, compared)
                threshold = math.nan if label == MEAN else thresholds[index, rule_index]
                own = {"label": label, "rule": str(rule), "threshold": threshold, "variable": variable}
                of_groups = [groups[i] for i in members]
                undefined = "no label has it in every group" if label == MEAN else "it would divide by zero"
                of_rates = _group_rows(part, of_groups, smallest, f"no value: {undefined}")
                for row in of_rates + _gap_rows(part, of_groups, smallest):
                    yield own | row


class _Part(NamedTuple):
    """The rates of the G groups of one variable, for one label (or the mean) and rule."""

    values: dict[str, np.ndarray]  # [G]
    resampled: dict[str, np.ndarray]  # [R, G]
    n: np.ndarray  # [G]
    positives: np.ndarray  # [G]
    subjects: np.ndarray  # [3, G], as in RateTable

    def deciding(self, rate: str, group: int) -> int:
        """Return how many subjects decide a rate of a group."""
        negative, positive, known = self.subjects[:, group]
        of = {"specificity": negative, "sensitivity": positive, "alert_rate": known}
        return int(of.get(rate, min(negative, positive)))


def _part(table: RateTable, rule: int, label: int | None, members: list[int], compared: list[int]) -> _Part:
    values, resampled = {}, {}
    for name in RATES:
        if label is not None:
            values[name] = table.values[name][label, rule, members]
            resampled[name] = table.resampled[name][:, label, rule, members]
            continue
        with_value = ~np.isnan(table.values[name][:, rule, compared]).any(axis=1)
        values[name] = _mean(table.values[name][with_value, rule][:, members], axis=0)
        resampled[name] = _mean(table.resampled[name][:, with_value, rule][..., members], axis=1)
    subjects = table.subjects[:, -1 if label is None else label][:, members]
    chosen = slice(None) if label is None else slice(label, label + 1)
    n, positives = (counts[chosen, members].sum(0) for counts in (table.n, table.positives))
    return _Part(values, resampled, n, positives, subjects)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean without NaN; NaN where nothing else is there."""
    known = ~np.isnan(values)
    return quotient(np.where(known, values, 0).sum(axis), known.sum(axis))


def _group_rows(
    part: _Part, groups: Sequence[Group], smallest: int, undefined: str
) -> list[dict[str, object]]:
    """Return a row for each group and rate; `undefined` is the note of a rate without a value."""
    rows = []
    for index, group in enumerate(groups):
        n, positives = int(part.n[index]), int(part.positives[index])
        for name in RATES:
            value, low, high, note = part.values[name][index], math.nan, math.nan, ""
            if group.variable and group.subjects < smallest:
                value, note = math.nan, f"too small: fewer than {smallest} subjects"
            elif math.isnan(value):
                note = undefined
            else:
                drawn, subjects = part.resampled[name][:, index], part.deciding(name, index)
                low, high = bootstrap.interval(value, drawn, subjects, (0, 1))
            rows.append(
                {"group": group.name, "metric": name, "value": value, "low": low, "high": high, "n": n,
                 "positives": positives, "subjects": group.subjects, "note": note}
            )  # fmt: skip
    return rows


def _gap_rows(part: _Part, groups: Sequence[Group], smallest: int) -> list[dict[str, object]]:
    """Return the gaps between the best and the worst of the known groups that are large enough."""
    if not groups[0].variable:
        return []
    rows = []
    for gap, rate in GAPS.items():
        compared = [
            i
            for i, group in enumerate(groups)
            if group.name != UNKNOWN and group.subjects >= smallest and not np.isnan(part.values[rate][i])
        ]
        row: dict[str, object] = {"group": "", "metric": gap}
        if len(compared) < 2:
            rows.append(row | {"note": "no gap: fewer than two groups have a value"})
            continue
        values = part.values[rate][compared]
        worst, best = compared[int(values.argmin())], compared[int(values.argmax())]
        value = float(np.ptp(values))
        subjects = min(part.deciding(rate, i) for i in compared)
        drawn = sizes_in_resamples(values, part.resampled[rate][:, compared], spread_of)
        low, high = bootstrap.score_interval(gap, value, drawn, Subjects(subjects, subjects))
        rows.append(row | {
            "value": value, "low": low, "high": high, "n": int(part.n[compared].sum()),
            "positives": int(part.positives[compared].sum()),
            "subjects": sum(groups[i].subjects for i in compared),
            "note": f"worst: {groups[worst].name}, best: {groups[best].name}" if value else "all are equal",
        })  # fmt: skip
    return rows


def make_table(config: Thresholds) -> pd.DataFrame:
    """Return the rows of thresholds_<split>.csv; `attrs["notes"]` are lines on what is left out.

    Raises:
        ValueError: predictions are missing, or no label has both classes on validation.
    """
    chosen_on = by_label(config.run, "val", config.label)
    scored = by_label(config.run, config.split, config.label)
    if chosen_on.labels != scored.labels:
        raise ValueError(f"{config.run}: its predictions of val and of {config.split} have different labels")
    both = [i for i, column in enumerate(chosen_on.truth.T) if (column == 0).any() and (column == 1).any()]
    if not both:
        raise ValueError(
            f"{config.run}: no label has both classes in the validation split, so no threshold can be chosen"
        )
    rules, labels = parse_rules(config.rules), [chosen_on.labels[i] for i in both]
    thresholds = np.array([[_chosen(rule, chosen_on, i) for rule in rules] for i in both])
    scored = scored.take_labels(both)
    store = Store.open_without_samples(config.store or store_of(config.run))
    names = parse_subgroups(config.subgroups)
    missing = missing_variables(store, names)
    names = tuple(name for name in names if not set(name.split("+")) & set(missing))
    subgroups = subgroups_of(store, scored.stay_id, scored.has_xray, names)
    groups = make_groups(subgroups, scored.subject_id)
    resamples = Resamples.of(scored.subject_id, config.resamples, config.seed)
    rows = score_rows(
        rate_table(scored, thresholds, groups, resamples), labels, rules, thresholds, groups, config.smallest
    )
    whole = dict.fromkeys(("n", "positives", "subjects"), "Int64")
    table = pd.DataFrame(rows).assign(split=config.split)[list(COLUMNS)].astype(whole)
    left_out = ", ".join(name for i, name in enumerate(chosen_on.labels) if i not in both)
    table.attrs["notes"] = [
        *([f"no threshold, as they have one class in the validation split: {left_out}"] if left_out else []),
        *(f"no groups by {name}: {store.folder} does not have it; extract again" for name in missing),
    ]
    return table


def _chosen(rule: Rule, scores: LabelledScores, label: int) -> float:
    known = ~np.isnan(scores.truth[:, label])
    return choose_threshold(rule, scores.truth[known, label], scores.probability[known, label])


def store_of(run: Path) -> Path:
    """Return the folder of the store that a run was trained on; ValueError if its settings do not say."""
    path = run / "config.yaml"
    data = read_yaml_mapping(path).get("data") if path.is_file() else None
    if not isinstance(data, dict) or "store" not in data:
        raise ValueError(f"{path} does not name the store of the run; give --store")
    return Path(str(data["store"]))


def make_pages(table: pd.DataFrame, run: Path) -> Iterator[Page]:
    """Yield a page for each rule: the mean over labels, or the only label."""
    label = table["label"].iloc[-1]
    notice = data_notice([data_kind(run)])
    for rule, rows in table[table["label"] == label].groupby("rule", sort=False):
        of_rates = rows[rows["metric"].isin(RATES)]
        body = of_rates.drop_duplicates(["variable", "group"])[
            ["variable", "group", "subjects", "n", "positives"]
        ]
        for name in RATES:
            part = of_rates[of_rates["metric"] == name]
            body[name] = [
                "too small" if note.startswith("too small") else cell(value, low, high)
                for value, low, high, note in part[["value", "low", "high", "note"]].itertuples(index=False)
            ]
        gaps = rows[rows["metric"].isin(GAPS)]
        notes = [
            f"{row['metric'][:3].upper()} gap by {row['variable']}: "
            f"{cell(row['value'], row['low'], row['high'])} {row['note']}".replace("  ", " ")
            for _, row in gaps.iterrows()
        ]
        threshold = rows["threshold"].iloc[0]
        chosen = "a threshold for each label" if math.isnan(threshold) else f"threshold {threshold:.4f}"
        of_label = "" if label == "y_true" else f", {label}"
        title = f"{run.name}, {rows['split'].iloc[0]}{of_label}, {rule} on validation ({chosen})"
        yield Page(title, notice, body.reset_index(drop=True), notes)


def main(config: Thresholds) -> None:
    """Write the table, and print it."""
    table = make_table(config)
    path = config.run / f"thresholds_{config.split}.csv"
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False)
    for page in make_pages(table, config.run):
        print(render(page, "text") + "\n")
    print(*table.attrs["notes"], f"thresholds: {path}", sep="\n")


if __name__ == "__main__":
    run_cli(main, Thresholds)
