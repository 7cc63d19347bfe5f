"""The calibration error without noise, and sizes in resamples, against slow references."""

import numpy as np
import pytest
from scipy.special import erf

from benchmarks.coverage import SCENARIOS, draw_cohort, gap_intervals, intervals, true_scores
from evaluation import metrics
from evaluation.debias import BinGaps, bin_gaps, mean_gaps, sizes_in_resamples, spread_of


def test_noise_around_the_error_gives_the_observed_plugin_on_average() -> None:
    draw = np.random.default_rng(0)
    gaps = BinGaps(draw.normal(0, 0.05, 10), draw.uniform(0.01, 0.06, 10))
    assert 0 < gaps.error < gaps.plugin
    share = gaps.error / gaps.plugin
    noisy = share * gaps.gap + gaps.deviation * draw.normal(size=(200_000, 10))
    assert np.abs(noisy).sum(1).mean() == pytest.approx(gaps.plugin, rel=2e-3)


def test_an_error_that_noise_explains_is_0_and_one_without_noise_is_the_plugin() -> None:
    assert BinGaps(np.full(4, 0.01), np.full(4, 0.1)).error == 0
    without = BinGaps(np.array([0.1, -0.2, 0.0]), np.zeros(3))
    assert without.error == pytest.approx(without.plugin) == pytest.approx(0.3)
    assert BinGaps(np.zeros(2), np.zeros(2)).error == 0


@pytest.mark.parametrize("share", [1e-6, 0.3, 0.9, 0.9999])
def test_the_expected_plugin_of_the_error_is_the_observed_one(share: float) -> None:
    gap = np.random.default_rng(0).normal(0, 0.1, 10)
    noise = share * np.abs(gap).mean() / np.sqrt(2 / np.pi)  # with a share of 1, noise explains it all
    gaps = BinGaps(gap, np.full(10, noise))
    scale = gaps.error / gaps.plugin
    distance = scale * np.abs(gap) / noise
    of_noise = np.sqrt(2 / np.pi) * np.exp(-(distance**2) / 2)
    expected = noise * (of_noise + distance * erf(distance / np.sqrt(2))).sum()  # of |normal|, by its formula
    assert 0 < scale <= 1 and expected == pytest.approx(gaps.plugin, rel=1e-9)


def test_deviations_are_those_of_sums_over_subjects() -> None:
    draw = np.random.default_rng(1)
    subject, bins, gap = draw.integers(0, 8, 60), draw.integers(0, 3, 60), draw.normal(size=60)
    subject[:8] = np.arange(8)
    (found,) = bin_gaps(gap[:, None], bins[:, None], 3, subject)
    for number in range(3):
        sums = [gap[(subject == one) & (bins == number)].sum() / 60 for one in range(8)]
        assert found.gap[number] == pytest.approx(sum(sums))
        assert found.deviation[number] == pytest.approx(np.std(sums, ddof=1) * np.sqrt(8))
    (alone,) = bin_gaps(gap[:, None], bins[:, None], 3, np.zeros(60, int))
    assert (alone.deviation == 0).all() and alone.error == pytest.approx(alone.plugin)


def test_samples_that_repeat_their_subject_count_once() -> None:
    draw = np.random.default_rng(2)
    truth, guess = draw.integers(0, 2, 100).astype(float), draw.random(100)
    once = metrics.calibration_gaps(truth, guess)
    twice = metrics.calibration_gaps(*(np.repeat(x, 5) for x in (truth, guess)), np.repeat(np.arange(100), 5))
    assert twice.error == pytest.approx(once.error) and twice.plugin == pytest.approx(once.plugin)


def test_the_error_of_a_mean_is_of_its_labels_together() -> None:
    draw = np.random.default_rng(3)
    truth, guess = draw.integers(0, 2, (80, 2)).astype(float), draw.random((80, 2))
    subject = np.arange(80) // 2
    scores = metrics.evaluate("multilabel", ("a", "b"), {}, truth, guess, subject=subject)
    found = {(score["label"], score["metric"]): score["value"] for score in scores}
    parts = [metrics.calibration_gaps(truth[:, i], guess[:, i], subject) for i in range(2)]
    both = np.concatenate([part.gap for part in parts]) / 2
    assert found["macro", "ece"] == pytest.approx(mean_gaps(parts).error)
    assert found["macro", "ece_plugin"] == pytest.approx(np.abs(both).sum())
    assert found["a", "ece"] == pytest.approx(parts[0].error) and found["a", "ece"] < found["a", "ece_plugin"]


def test_a_gap_in_a_resample_explains_the_observed_one_by_its_noise() -> None:
    draw = np.random.default_rng(4)
    values = np.array([0.6, 0.7, 0.75])
    resampled = values + draw.normal(0, 0.05, (40, 3))
    resampled[0, 1] = np.nan  # a group without a value
    found = sizes_in_resamples(values, resampled, spread_of)
    scales = np.linspace(0, 5, 50001)
    for row, size in zip(np.nan_to_num(resampled - values), found, strict=True):
        below = np.flatnonzero(np.ptp(scales[:, None] * values + row, axis=1) < 0.15)
        assert size == pytest.approx(0.15 * scales[below[-1]] if len(below) else 0, abs=1e-4)
    assert (sizes_in_resamples(np.full(3, 0.5), resampled, spread_of) == 0).all()


@pytest.mark.parametrize("name", ["calibrated", "too extreme"])
def test_intervals_of_the_calibration_error_contain_the_truth_where_percentiles_do_not(name: str) -> None:
    """A small version of benchmarks.coverage: 60 intervals, of which 57 are expected to be right."""
    truth = true_scores(name)["ece"]
    assert name in SCENARIOS
    covered = {"ours": 0, "percentile": 0}
    for number in range(60):
        found = intervals(draw_cohort(name, 200, np.random.default_rng(number)), 100, number)
        for interval in covered:
            value, low, high = found["ece", interval]
            covered[interval] += low <= truth <= high
            assert interval == "percentile" or low <= value <= high
    assert covered["ours"] > 51 and covered["percentile"] < 45


def test_intervals_of_a_gap_of_equal_groups_begin_at_0_where_that_of_the_named_pair_does_not() -> None:
    covered = {"ours": 0, "difference": 0}
    for number in range(100):
        found = gap_intervals("five groups, no gap", 300, 100, np.random.default_rng(number))
        for interval in covered:
            covered[interval] += found["gap", interval][1] <= 0
    assert covered["ours"] > 88 and covered["difference"] < 85
