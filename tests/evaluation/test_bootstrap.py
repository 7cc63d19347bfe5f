"""The bootstrap equals scikit-learn and slow loops on the samples that were really drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resamples
from evaluation.metrics import ContinuousTarget

SAMPLES = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([0.0, 1.0, math.nan]), st.integers(0, 6)),
    min_size=2,
    max_size=60,
)


def drawn(resamples: Resamples, number: int) -> np.ndarray:
    """Places of the samples of one resample, each as often as its subject was drawn."""
    times = resamples.counts(range(number, number + 1))[0][resamples.subject]
    return np.repeat(np.arange(len(times)), times)


def cohort(seed: int, samples: int = 80, labels: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subject [n], truth [n, L] with unknown labels and probability [n, L] with ties."""
    source = np.random.default_rng(seed)
    truth = source.integers(0, 2, (samples, labels)).astype(float)
    truth[source.random(truth.shape) < 0.2] = np.nan
    return source.integers(0, 40, samples), truth, source.random(truth.shape).round(1)


@given(SAMPLES, st.integers(0, 5))
def test_areas_of_every_resample_equal_the_reference(rows: list[tuple], seed: int) -> None:
    subject, truth, score = np.array(rows).T
    resamples = Resamples.of(subject, 5, seed)
    auroc, auprc = bootstrap.areas(resamples, truth[:, None], score[:, None], threads=2)
    for number in range(5):
        index = drawn(resamples, number)
        index = index[~np.isnan(truth[index])]
        if len(set(truth[index])) < 2:
            assert math.isnan(auroc[number, 0]) and math.isnan(auprc[number, 0])
            continue
        want = reference.roc_auc_score(truth[index], score[index])
        assert auroc[number, 0] == pytest.approx(want, abs=1e-12)
        want = reference.average_precision_score(truth[index], score[index])
        assert auprc[number, 0] == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("digits", [1, 3, 17])
def test_areas_of_many_samples_equal_the_reference(digits: int) -> None:
    source = np.random.default_rng(0)
    truth = (source.random((3000, 2)) < (0.1, 0.6)).astype(float)
    score = (0.3 * truth + source.random(truth.shape)).round(digits).astype(np.float32)
    resamples = Resamples.of(source.integers(0, 2000, 3000), 70, seed=1)
    auroc, auprc = bootstrap.areas(resamples, truth, score)
    for number in (0, 33, 69):
        index = drawn(resamples, number)
        for label in range(2):
            pair = truth[index, label], score[index, label]
            assert auroc[number, label] == pytest.approx(reference.roc_auc_score(*pair), abs=1e-12)
            want = reference.average_precision_score(*pair)
            assert auprc[number, label] == pytest.approx(want, abs=1e-12)


def test_every_binary_score_and_mean_of_a_resample_is_that_of_its_samples() -> None:
    subject, truth, guess = cohort(0)
    truth[:, 3] = np.where(np.arange(80) == 5, 1, 0)  # its one positive is in some resamples only
    labels, groups = ("a", "b", "c", "d"), {"pair": ("b", "d"), "rare": ("d",)}
    resamples = Resamples.of(subject, 25, seed=3)
    found = bootstrap.evaluate("multilabel", labels, groups, truth, guess, resamples)
    for number in range(25):
        index = drawn(resamples, number)
        scores = metrics.evaluate("multilabel", labels, groups, truth[index], guess[index])
        assert len(scores) == len(found) + len(labels) + len(groups) + 1  # that have an ece_plugin
        for score in scores:
            if score["metric"] in ("ece", "ece_plugin"):
                continue
            got = found[score["label"], score["metric"]][number]
            assert got == pytest.approx(score["value"], abs=1e-12, nan_ok=True)
    missing = int(np.isnan(found["d", "auroc"]).sum())
    assert 0 < missing < 25
    assert bootstrap.undefined(found) == {"d": missing, "rare": missing}


def slow_gaps(truth: np.ndarray, guess: np.ndarray) -> list[float]:
    """The sum of probability - truth in each of ten bins, divided by the samples."""
    known = ~np.isnan(truth)
    pairs = list(zip(guess[known], truth[known], strict=True))
    return [
        sum(p - y for p, y in pairs if min(int(p * 10), 9) == bin_number) / len(pairs)
        for bin_number in range(10)
    ]


def test_the_calibration_error_of_a_resample_explains_the_observed_one_by_its_noise() -> None:
    subject, truth, guess = cohort(4, labels=2)
    resamples = Resamples.of(subject, 12, seed=1)
    found = bootstrap.evaluate("multilabel", ("a", "b"), {"one": ("b",)}, truth, guess, resamples)
    observed = [slow_gaps(truth[:, i], guess[:, i]) for i in range(2)]
    for label, columns in (("a", [0]), ("b", [1]), ("one", [1]), ("macro", [0, 1])):
        gaps = np.concatenate([observed[i] for i in columns]) / len(columns)
        scales = np.linspace(0, 8, 8001)
        for number in range(12):
            index = drawn(resamples, number)
            own = np.concatenate([slow_gaps(truth[index, i], guess[index, i]) for i in columns])
            sizes = np.abs(scales[:, None] * gaps + own / len(columns) - gaps).sum(1)
            below = np.flatnonzero(sizes < np.abs(gaps).sum())  # to the left of the largest root
            want = scales[below[-1]] * np.abs(gaps).sum() if len(below) else 0.0
            assert found[label, "ece"][number] == pytest.approx(want, abs=2e-3)


def test_calibration_alone_is_that_of_all_scores() -> None:
    subject, truth, guess = cohort(5)
    arguments = (
        "multilabel",
        ("a", "b", "c", "d"),
        {"pair": ("a", "d")},
        truth,
        guess,
        Resamples.of(subject, 9, 0),
    )
    whole, part = bootstrap.evaluate(*arguments), bootstrap.evaluate(*arguments, ranking=False)
    assert {metric for _, metric in part} == {"brier", "ece"}
    for key, values in part.items():
        np.testing.assert_array_equal(values, whole[key])


def test_every_ordinal_score_of_a_resample_is_that_of_its_samples() -> None:
    source = np.random.default_rng(0)
    truth, guess = source.integers(0, 4, (60, 1)).astype(float), source.random((60, 4))
    truth[:5] = np.nan
    hours = np.where(np.isnan(truth[:, 0]), np.nan, 10 * truth[:, 0] + source.random(60))
    means = np.array([5.0, 15.0, np.nan, 35.0])
    resamples = Resamples.of(source.integers(0, 30, 60), 20, seed=0)
    found = bootstrap.evaluate(
        "ordinal", ("los",), {}, truth, guess, resamples, ContinuousTarget(hours, means)
    )
    assert {name for _, name in found} == {"kappa", "accuracy", "mad", "mse", "mape"}
    for number in range(20):
        index = drawn(resamples, number)
        amounts = ContinuousTarget(hours[index], means)
        for score in metrics.evaluate("ordinal", ("los",), {}, truth[index], guess[index], amounts):
            assert found[score["label"], score["metric"]][number] == pytest.approx(score["value"], abs=1e-9)


def test_samples_of_a_subject_are_drawn_together() -> None:
    subject = np.array([7, 9, 7, 3, 9, 7])
    resamples = Resamples.of(subject, 50, seed=0)
    counts = resamples.counts(range(50))
    assert (counts.sum(1) == 3).all() and len(np.unique(counts, axis=0)) > 5
    mean = bootstrap.totals(resamples, np.arange(6), np.zeros(6, int), (subject == 7) * 1.0, 1)[:, 0]
    assert set(mean) <= {0, 3, 6, 9}


def test_draws_are_a_function_of_the_seed_and_not_of_blocks_or_threads() -> None:
    subject, truth, guess = cohort(1)
    one, two = (bootstrap.areas(Resamples.of(subject, 90, 5), truth, guess, n) for n in (1, 3))
    np.testing.assert_array_equal(one, two)
    few = bootstrap.areas(Resamples.of(subject, 7, 5), truth, guess)
    np.testing.assert_array_equal(np.array(one)[:, :7], few)
    other = bootstrap.areas(Resamples.of(subject, 7, 6), truth, guess)
    assert not np.allclose(few, other, equal_nan=True)


def test_draws_are_kept_for_the_next_metric_unless_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    resamples = Resamples.of(np.arange(9), 4, 0)
    kept = resamples.counts(range(2))
    assert resamples.counts(range(2)) is kept is resamples.take(np.arange(3)).counts(range(2))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 0
    monkeypatch.setattr(bootstrap, "KEPT_COUNTS", 9 * 4 - 1)
    many = Resamples.of(np.arange(9), 4, 0)
    assert many.counts(range(2)) is not many.counts(range(2))
    np.testing.assert_array_equal(many.counts(range(2)), kept)


def test_part_of_the_samples_keeps_the_draws() -> None:
    subject, truth, guess = cohort(2)
    resamples, part = Resamples.of(subject, 4, 0), np.arange(80) % 3 == 0
    rest = np.where(part[:, None], truth, np.nan)
    np.testing.assert_array_equal(
        bootstrap.areas(resamples.take(part), truth[part], guess[part]),
        bootstrap.areas(resamples, rest, guess),
    )


def student(subjects: int) -> float:
    """Ends of a 95 % interval in standard errors, for the standard deviation over so many subjects."""
    return stats.t.ppf(0.975, subjects - 1) * math.sqrt(subjects / (subjects - 1))


def test_an_interval_is_students_on_the_logit_of_a_score_within_bounds() -> None:
    draw = np.random.default_rng(0).normal(0.8, 0.05, 300).clip(0, 1)
    for value, bounds in ((0.8, (0, 1)), (0.1, (-1, 1))):
        low, high = bootstrap.interval(value, draw, 12, bounds)
        a, b = bounds
        slope = (b - a) / ((value - a) * (b - value))  # of log((x - a) / (b - x))
        reach = student(12) * draw.std() * slope
        for end, sign in ((low, -1), (high, 1)):
            assert math.log((end - a) / (b - end)) == pytest.approx(
                math.log((value - a) / (b - value)) + sign * reach
            )
    low, high = bootstrap.interval(7.0, 10 * draw, 12, (0, math.inf))
    assert (
        math.log(high / 7)
        == pytest.approx(math.log(7 / low))
        == pytest.approx(student(12) * 10 * draw.std() / 7)
    )
    low, high = bootstrap.interval(-0.2, draw, 12)
    assert (low, high) == pytest.approx((-0.2 - student(12) * draw.std(), -0.2 + student(12) * draw.std()))


def test_intervals_at_a_bound_of_one_value_and_of_one_subject() -> None:
    same = np.ones(50)
    low, high = bootstrap.interval(1.0, same, 30, (0, 1))
    assert high == 1
    assert (1 - low) ** 2 == pytest.approx(student(30) ** 2 * low * (1 - low) / 30)  # Wilson's equation
    assert bootstrap.interval(0.0, 0 * same, 30, (0, 1)) == pytest.approx((0, 1 - low))
    assert bootstrap.interval(0.5, same / 2, 30, (0, 1)) == (0.5, 0.5)  # all probabilities are equal
    assert bootstrap.interval(1.0, np.array([1.0, 0.9]), 30, (0, 1))[1] == 1
    for subjects, values in ((1, same), (30, same[:1]), (30, same * np.nan)):
        assert np.isnan(bootstrap.interval(0.5, values, subjects, (0, 1))).all()


def test_every_interval_is_around_its_score_and_a_score_without_value_has_none() -> None:
    subject, truth, guess = cohort(3)
    truth[:, 1] = 0
    labels = ("a", "b", "c", "d")
    found = bootstrap.evaluate("multilabel", labels, {}, truth, guess, Resamples.of(subject, 200, 0))
    subjects = bootstrap.subjects_of("multilabel", labels, {}, truth, subject)
    scores = metrics.evaluate("multilabel", labels, {}, truth, guess, subject=subject)
    for score in bootstrap.with_intervals(scores, found, subjects):
        if score["metric"] == "ece_plugin" or math.isnan(score["value"]):
            assert "low" not in score
        else:
            assert score["low"] <= score["value"] <= score["high"]
    assert bootstrap.undefined(found) == {"b": 200}


def test_the_subjects_of_the_rarer_class_decide_a_score() -> None:
    subject = np.array([1, 1, 2, 3, 4, 5])
    truth = np.array([[1.0, 0], [1, 0], [1, 1], [0, 0], [0, 0], [0, np.nan]])
    found = bootstrap.subjects_of("multilabel", ("a", "b"), {"both": ("a", "b")}, truth, subject)
    assert found == {"a": (2, 5), "b": (1, 4), "both": (2, 5), "macro": (2, 5)}  # deciding, known
    assert bootstrap.subjects_of("binary", ("a",), {}, truth[3:, :1], subject[3:])["a"] == (3, 3)  # one class
    ordinal = bootstrap.subjects_of("ordinal", ("los",), {}, np.array([[0.0], [1], [np.nan]]), subject[:3])
    assert ordinal == {"los": (1, 1), "macro": (1, 1)}


def test_a_percentile_interval_is_wider_for_few_subjects_and_fitted_numbers() -> None:
    values = np.random.default_rng(0).random(1000)
    for subjects, fitted, factor in ((15, 0, 1.0), (100, 20, math.sqrt(100 / 80)), (10, 20, 2.0)):
        tail = stats.norm.cdf(-student(subjects) * factor)
        want = np.quantile(values, (tail, 1 - tail))
        assert bootstrap.percentile_interval(values, subjects, fitted) == pytest.approx(tuple(want))
    error = bootstrap.score_interval("ece_isotonic", 0.5, values, bootstrap.Subjects(15, 100))
    assert error == bootstrap.percentile_interval(values, 100, 20)
    gap = bootstrap.score_interval("auroc_gap", 0.5, values, bootstrap.Subjects(15, 100))
    assert gap == bootstrap.percentile_interval(values, 15)
    assert bootstrap.score_interval("ece", 2.0, values, bootstrap.Subjects(15, 100)).high == 2
    assert np.isnan(bootstrap.score_interval("ece", 0.5, values, bootstrap.Subjects(1, 9))).all()


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.floats(-1, 1), st.integers(2, 50))
def test_a_difference_is_significant_where_its_interval_leaves_zero_out(
    drawn_values: list[float], value: float, subjects: int
) -> None:
    values = np.array(drawn_values)
    low, high = bootstrap.interval(value, values, subjects)
    p = bootstrap.p_value(value, values, subjects)
    if min(abs(low), abs(high)) > 1e-9:
        assert (p < 0.05) == (low > 0 or high < 0)


def test_scores_that_are_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        bootstrap.areas(Resamples.of(np.arange(2), 3, 0), np.array([[0.0], [1]]), np.array([[0.1], [np.nan]]))


def test_counts_have_room_for_the_samples_of_any_resample() -> None:
    for samples, room in ((2**15 - 1, np.int32), (2**15, np.int64)):  # of one subject of 2**16
        counts = Resamples(np.zeros(samples, np.int64), 2**16, 1, seed=0).counts(range(2))
        assert counts.dtype == room and counts.sum(1).tolist() == [2**16, 2**16]


@pytest.mark.filterwarnings("error")
def test_nothing_drawn_or_defined_has_no_interval() -> None:
    for values in (np.full(3, np.nan), np.zeros(0)):
        for ends in (bootstrap.percentile_interval(values), bootstrap.interval(0.5, values, 9)):
            assert np.isnan(ends).all()


def test_an_interval_of_a_gap_ends_at_the_largest_possible_gap() -> None:
    drawn = np.linspace(0.7, 1.4, 200)
    for metric, most in (("tpr_gap", 1.0), ("kappa_gap", bootstrap.percentile_interval(drawn, 50).high)):
        found = bootstrap.score_interval(metric, 0.9, drawn, bootstrap.Subjects(50, 50))
        assert found.high == most and found.low < 0.9
