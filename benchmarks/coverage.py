"""Coverage of the 95 % intervals: how often they contain a truth that is known, by simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

from benchmarks.record import table
from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resamples, Subjects
from evaluation.debias import sizes_in_resamples, spread_of
from evaluation.results import append_rows, read_rows
from utils.cli import run_cli

SUBJECT_SHARE = 0.7  # of the variance of risks: the rest is between the samples of a subject
LABEL_CORRELATION = 0.5  # of what decides the labels of a subject beside its risk
CLASSES = 10  # of an ordinal label
BLOCK = 50  # cohorts that are written at once
GRID = 1_000_000  # points of the integrals
SHOWN = ("auroc", "auprc", "brier", "ece", "kappa")
COLUMNS = (
    "scenario", "samples", "resamples", "first", "cohorts", "metric", "interval", "truth", "mean", "covered",
    "above", "below", "width",
)  # fmt: skip


class Scenario(NamedTuple):
    """Predictions for patients whose risk has a normal logit.

    logit, deviation: its mean and standard deviation. slope, shift: the predicted logit is slope times the
    true one plus shift, so that 1 and 0 are perfectly calibrated.
    """

    logit: float
    deviation: float
    slope: float = 1.0
    shift: float = 0.0


SCENARIOS = {
    "calibrated": Scenario(-1.7, 1.4),
    "too extreme": Scenario(-1.7, 1.4, slope=1.6, shift=0.3),
    "too timid": Scenario(0.0, 1.0, slope=0.6, shift=0.4),
    "rare and well predicted": Scenario(-5.5, 3.8),
}
ORDINAL = {
    "ordinal": 1.0,
    "ordinal, well predicted": 0.3,
}  # noise of the prediction, in deviations of the truth


GAPS = {  # the true rate of each group, all of one size
    "two groups, no gap": (0.8, 0.8),
    "five groups, no gap": (0.8,) * 5,
    "five groups, a gap": (0.7, 0.75, 0.8, 0.85, 0.9),
}


@dataclass(frozen=True)
class CoverageBenchmark:
    """Draw cohorts with known truth, and count how many intervals contain it.

    A subject has two samples on average, which are alike. The same command goes on after an interruption.
    """

    samples: tuple[int, ...] = (200, 2000)
    """Samples of a cohort."""
    cohorts: int = 1000
    """Cohorts of each scenario."""
    resamples: int = 400
    """Resamples of the subjects of each cohort."""
    out: Path = Path("data/benchmarks/coverage.csv")
    """File with the counts, to which each 50 cohorts are added."""


class DrawnOnce(Resamples):
    """Resamples that are all drawn at once, which is much faster for small cohorts."""

    @cached_property
    def all_counts(self) -> np.ndarray:
        """Counts of every resample, [R, subjects]."""
        draws = np.random.default_rng(self.seed).integers(self.subjects, size=(self.count, self.subjects))
        cells = draws + self.subjects * np.arange(self.count)[:, None]
        counts = np.bincount(cells.ravel(), minlength=self.count * self.subjects)
        return counts.reshape(self.count, self.subjects).astype(np.int32)

    def counts(self, resamples: range) -> np.ndarray:
        """Return how often each subject was drawn, [len(resamples), subjects]."""
        return self.all_counts[resamples.start : resamples.stop]


class Cohort(NamedTuple):
    """The samples of some subjects."""

    kind: str
    subject: np.ndarray  # [n]
    truth: np.ndarray  # [n, 1]
    probability: np.ndarray  # [n, 1], or [n, K]


def draw_cohort(name: str, samples: int, rng: np.random.Generator) -> Cohort:
    """Draw the samples of a scenario."""
    subject = np.repeat(np.arange(samples), 1 + rng.poisson(1.0, samples))[:samples]

    def alike(share: float) -> np.ndarray:
        of_subject, own = rng.normal(size=samples)[subject], rng.normal(size=samples)
        return np.asarray(np.sqrt(share) * of_subject + np.sqrt(1 - share) * own)

    latent, chance = alike(SUBJECT_SHARE), alike(LABEL_CORRELATION)
    if name in ORDINAL:
        predicted = class_of(latent + ORDINAL[name] * chance)
        return Cohort("ordinal", subject, class_of(latent)[:, None].astype(float), np.eye(CLASSES)[predicted])
    scenario = SCENARIOS[name]
    logit = scenario.logit + scenario.deviation * latent
    truth = (ndtr(chance) < expit(logit)).astype(float)
    return Cohort("binary", subject, truth[:, None], expit(scenario.slope * logit + scenario.shift)[:, None])


def edges() -> np.ndarray:
    """Return the values between the classes of an ordinal label."""
    return np.linspace(-1.5, 1.5, CLASSES - 1)


def class_of(value: np.ndarray) -> np.ndarray:
    """Return the class of each value."""
    return np.digitize(value, edges())


@cache
def true_scores(name: str) -> dict[str, float]:
    """Return the scores of infinitely many samples, by integration over the risk."""
    latent = np.linspace(-9, 9, GRID)
    weight = np.exp(-(latent**2) / 2)
    weight /= weight.sum()
    if name in ORDINAL:
        inner = ndtr((edges() - latent[:, None]) / ORDINAL[name])
        predicted = np.diff(np.hstack([np.zeros((GRID, 1)), inner, np.ones((GRID, 1))]))
        joint = np.zeros((CLASSES, CLASSES))
        np.add.at(joint, class_of(latent), weight[:, None] * predicted)
        return {"kappa": float(metrics.kappa_of_tables(joint))}
    scenario = SCENARIOS[name]
    logit = scenario.logit + scenario.deviation * latent
    risk, predicted = expit(logit), expit(scenario.slope * logit + scenario.shift)
    positive, negative = weight * risk, weight * (1 - risk)
    hits, alarms = positive[::-1].cumsum()[::-1], negative[::-1].cumsum()[::-1]
    below = 1 - (alarms - negative / 2) / negative.sum()
    gap = np.bincount(
        metrics.calibration_bin(predicted), weight * (predicted - risk), metrics.CALIBRATION_BINS
    )
    return {
        "auroc": float(positive @ below / positive.sum()),
        "auprc": float(positive @ (hits / (hits + alarms)) / positive.sum()),
        "brier": float(positive @ (1 - predicted) ** 2 + negative @ predicted**2),
        "ece": float(np.abs(gap).sum()),
    }


def intervals(cohort: Cohort, resamples: int, seed: int) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return value and ends of the intervals of each score: {(metric, "ours" or "percentile"): ...}."""
    kind, subject, truth, probability = cohort
    draws = DrawnOnce.of(subject, resamples, seed)
    drawn = bootstrap.evaluate(kind, ("y",), {}, truth, probability, draws)
    of = bootstrap.subjects_of(kind, ("y",), {}, truth, subject)
    scores = metrics.evaluate(kind, ("y",), {}, truth, probability, subject=subject)
    found = {}
    for score in bootstrap.with_intervals(scores, drawn, of):
        if score["label"] == "y" and score["metric"] in SHOWN:
            metric = score["metric"]
            ends = score.get("low", np.nan), score.get("high", np.nan)
            found[metric, "ours"] = (score["value"], *ends)
            if metric != "ece":
                found[metric, "percentile"] = (
                    score["value"], *bootstrap.percentile_interval(drawn["y", metric])
                )  # fmt: skip
    if kind == "binary":
        found["ece", "percentile"] = _plugin(cohort, draws)
    return found


def _plugin(cohort: Cohort, draws: Resamples) -> tuple[float, float, float]:
    """Return the plug-in calibration error and its percentile interval, as they were up to version 0.2.0."""
    truth, probability = cohort.truth[:, 0], cohort.probability[:, 0]
    everyone = np.arange(len(truth))
    bins = metrics.calibration_bin(probability)
    gaps = bootstrap.totals(draws, everyone, bins, probability - truth, metrics.CALIBRATION_BINS)
    n = bootstrap.totals(draws, everyone, 0 * bins, np.ones(len(truth)), 1)
    drawn = (np.abs(gaps) / n).sum(1)
    return metrics.calibration_error(truth, probability), *bootstrap.percentile_interval(drawn)


def gap_intervals(
    name: str, samples: int, resamples: int, rng: np.random.Generator
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return the gap of the rates of some groups, and its intervals: ours, and that of a difference.

    The latter is Student's interval of the difference between the best and the worst group, as if these had
    been named before. A subject has one sample.
    """
    size = samples // len(GAPS[name])
    rate = rng.binomial(size, GAPS[name]) / size
    drawn = rng.binomial(size, rate, (resamples, len(rate))) / size
    gap = float(np.ptp(rate))
    sizes = sizes_in_resamples(rate, drawn, spread_of)
    ours = bootstrap.score_interval("tpr_gap", gap, sizes, Subjects(size, size))
    named = bootstrap.interval(gap, drawn[:, rate.argmax()] - drawn[:, rate.argmin()], size)
    return {("gap", "ours"): (gap, *ours), ("gap", "difference"): (gap, *named)}


def measure(name: str, samples: int, resamples: int, first: int) -> Iterator[dict[str, object]]:
    """Yield a row for each score and interval of BLOCK cohorts from the number `first` on."""
    truth = {"gap": float(np.ptp(GAPS[name]))} if name in GAPS else true_scores(name)
    found = []
    for number in range(first, first + BLOCK):
        rng = np.random.default_rng((number, samples))
        if name in GAPS:
            found.append(gap_intervals(name, samples, resamples, rng))
        else:
            found.append(intervals(draw_cohort(name, samples, rng), resamples, number))
    for metric, interval in found[0]:
        value, low, high = np.array([cohort[metric, interval] for cohort in found]).T
        yield {
            "scenario": name, "samples": samples, "resamples": resamples, "first": first, "cohorts": BLOCK,
            "metric": metric, "interval": interval, "truth": truth[metric], "mean": value.mean(),
            "covered": int(((low <= truth[metric]) & (truth[metric] <= high)).sum()),
            "above": int((low > truth[metric]).sum()), "below": int((high < truth[metric]).sum()),
            "width": np.nanmean(high - low),
        }  # fmt: skip


def summary(rows: pd.DataFrame) -> str:
    """Return a table of the coverage of every score."""
    groups = rows.groupby(["scenario", "samples", "metric", "truth", "interval"], sort=False)
    sums = groups[["cohorts", "covered", "above", "below"]].sum()
    for name in ("covered", "above", "below"):
        sums[name] = (100 * sums[name] / sums["cohorts"]).round(1)
    shown = sums.join(groups[["mean", "width"]].mean().round(3)).reset_index().round({"truth": 3})
    return table([list(shown.columns), *([str(cell) for cell in row] for row in shown.to_numpy().tolist())])


def main(config: CoverageBenchmark) -> None:
    """Measure what the file does not have yet, and print the table."""
    for samples in config.samples:
        for name in (*SCENARIOS, *ORDINAL, *GAPS):
            for first in range(0, config.cohorts, BLOCK):
                if not _is_done(config, name, samples, first):
                    rows = list(measure(name, samples, config.resamples, first))
                    append_rows(config.out, COLUMNS, rows, "move it away")
            print(f"{samples} samples, {name}: {config.cohorts} cohorts", flush=True)
    rows = read_rows(config.out, ("scenario", "metric", "interval"))
    print(summary(rows[rows["resamples"] == config.resamples]))


def _is_done(config: CoverageBenchmark, name: str, samples: int, first: int) -> bool:
    if not config.out.is_file():
        return False
    rows = read_rows(config.out, ("scenario", "metric", "interval"))
    mine = {"scenario": name, "samples": samples, "first": first, "resamples": config.resamples}
    return bool((rows[list(mine)] == list(mine.values())).all(axis=1).any())


if __name__ == "__main__":
    run_cli(main, CoverageBenchmark)
