"""A report writes predictions and rows, and its table tells means, groups and what is in no mean."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.store import Store
from evaluation.metrics import Score, headline
from evaluation.results import read_results
from evaluation.scoring import (
    ScoringContext,
    _undefined_note,
    class_means,
    compute_scores,
    mean_scores,
    monitor_score,
    score_with_intervals,
    summary,
    write_report,
)
from evaluation.subgroups import SMALLEST_GROUP, parse_subgroups, sample_subgroups
from tasks import TASKS
from tests.samples import make_samples
from tests.stores import write_store


def test_the_table_has_a_line_for_the_mean_and_each_group() -> None:
    task, draw = TASKS["phenotyping"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (40, 25)), draw.random((40, 25))
    lines = summary(task, compute_scores(task, truth, guess)).splitlines()
    assert [line.split()[0] for line in lines] == ["auroc", "macro", *task.groups]
    assert lines[1].split()[-2:] == ["1000", str(truth.sum())]


@pytest.mark.parametrize("name", TASKS)
def test_the_monitor_alone_is_that_of_all_scores(name: str) -> None:
    task, draw = TASKS[name], np.random.default_rng(0)
    truth = draw.integers(0, task.outputs if task.kind == "ordinal" else 2, (40, len(task.labels))).astype(
        float
    )
    truth[draw.random(truth.shape) < 0.1] = np.nan
    if task.kind == "multilabel":
        truth[:, 0] = np.where(np.isnan(truth[:, 0]), np.nan, 0)
    guess = draw.random((40, task.outputs))
    means = headline(compute_scores(task, truth, guess, subject=np.arange(40) // 2))
    assert monitor_score(task, truth, guess) == means[task.monitor]
    assert mean_scores(task, truth, guess, np.arange(40) // 2) == means
    one_class = np.zeros_like(truth)
    if task.kind != "ordinal":
        assert np.isnan(monitor_score(task, one_class, guess))
        assert all(np.isnan(mean) for mean in mean_scores(task, one_class, guess).values())


def test_a_label_of_one_class_is_named_and_left_out() -> None:
    task, draw = TASKS["radiology"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (40, 14)), draw.random((40, 14))
    truth[:, 5] = 0
    table = summary(task, compute_scores(task, truth, guess))
    assert (
        table.endswith(f"excluded from the means (one class in this split): {task.labels[5]}")
        and "nan" not in table
    )


def context(count: int, resamples: int = 50, **columns: np.ndarray) -> ScoringContext:
    return ScoringContext(pd.DataFrame(columns, index=range(count)), resamples, 0)


def by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score["label"], score["metric"]): score for score in scores}


def test_a_report_adds_rows_and_writes_predictions(tmp_path: Path) -> None:
    task = TASKS["in-hospital-mortality"]
    samples, guess = make_samples(np.array([[0.0], [1.0], [np.nan]])), np.array([[0.2], [0.9], [0.5]])
    predictions = tmp_path / "predictions_test.csv"
    for run in ("one", "two"):
        columns = {"run": run, "split": "test"}
        text = write_report(task, samples, guess, context(3), predictions, tmp_path, columns)
    rows = pd.read_csv(tmp_path / "in-hospital-mortality.csv")
    auroc = rows[(rows["metric"] == "auroc") & (rows["label"] == "y_true")]
    assert auroc["run"].tolist() == ["one", "two"] and auroc["value"].tolist() == [1, 1]
    assert auroc["n"].tolist() == [2, 2] and auroc["positives"].tolist() == [1, 1]
    written = pd.read_csv(predictions)
    assert written["stay_id"].tolist() == [300, 301, 302] and written["truth"].isna().tolist() == [
        False
    ] * 2 + [True]
    assert str(predictions) in text and "in-hospital-mortality.csv" in text


def test_every_score_has_an_interval_or_none_is_asked_for() -> None:
    task, draw = TASKS["phenotyping"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (90, 25)).astype(float), draw.random((90, 25))
    scores, resampled = score_with_intervals(task, make_samples(truth), guess, context(90))
    assert len(scores) == 5 * (25 + 4) and len(resampled) == 4 * (25 + 4)
    assert all(score["low"] < score["high"] for score in scores if score["metric"] != "ece_plugin")
    plain, nothing = score_with_intervals(task, make_samples(truth), guess, context(90, resamples=0))
    assert nothing == {} and plain == compute_scores(task, truth, guess)


def test_subgroups_have_the_scores_of_their_own_samples_and_a_gap() -> None:
    task, draw = TASKS["in-hospital-mortality"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (90, 1)).astype(float), draw.random((90, 1))
    race = np.array(["white", "asian", "unknown"])[np.arange(90) % 3]
    found = by_name(score_with_intervals(task, make_samples(truth), guess, context(90, race=race))[0])
    own = {}
    for name in ("white", "asian", "unknown"):
        mask = race == name
        alone = by_name(compute_scores(task, truth[mask].astype(np.float32), guess[mask]))
        score = found[f"macro[race={name}]", "auroc"]
        own[name] = alone["macro", "auroc"]["value"]
        assert (score["value"], score["n"]) == (own[name], 30) and score["low"] < score["high"]
    gap = found["macro[race]", "auroc_gap"]
    assert gap["value"] == abs(own["white"] - own["asian"]) and gap["n"] == 60
    assert 0 <= gap["low"] < gap["high"]


def test_a_small_subgroup_is_shown_without_a_value_and_is_in_no_gap() -> None:
    task, draw = TASKS["in-hospital-mortality"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (90, 1)).astype(float), draw.random((90, 1))
    sex = np.where(np.arange(90) < SMALLEST_GROUP - 1, "F", np.where(np.arange(90) % 2 == 0, "M", "X"))
    scores = score_with_intervals(task, make_samples(truth), guess, context(90, sex=sex))[0]
    found = by_name(scores)
    small = found["macro[sex=F]", "auroc"]
    assert np.isnan(small["value"]) and small["n"] == SMALLEST_GROUP - 1 and "low" not in small
    assert found["macro[sex]", "auroc_gap"]["n"] == 90 - small["n"]
    lines = summary(task, scores, ["sex"]).splitlines()
    assert sum("too small" in line and "macro[sex=F]" in line for line in lines) == 1
    assert lines[-1] == f"too small: fewer than {SMALLEST_GROUP} subjects, and in no gap"


def test_a_subgroup_of_one_class_says_so() -> None:
    task, draw = TASKS["in-hospital-mortality"], np.random.default_rng(0)
    truth, guess, sex = (
        draw.integers(0, 2, (90, 1)).astype(float),
        draw.random((90, 1)),
        np.repeat(["F", "M"], 45),
    )
    truth[:45] = 0
    scores = score_with_intervals(task, make_samples(truth), guess, context(90, sex=sex))[0]
    *lines, note = summary(task, scores, ["sex"]).splitlines()
    (line,) = [line for line in lines if "macro[sex=F]" in line]
    assert line.count("one class") == 4 and "too small" not in line
    assert note == "one class: all known labels are alike there, so none has a score, and n counts none"
    assert ("macro[sex]", "auroc_gap") not in by_name(scores)


def test_calibrated_probabilities_have_rows_and_columns_called_so(tmp_path: Path) -> None:
    task, draw = TASKS["in-hospital-mortality"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (90, 1)).astype(float), draw.random((90, 1))
    others = {"temperature": guess**2, "isotonic": (guess > 0.5).astype(float)}
    samples, path = make_samples(truth), tmp_path / "predictions_test.csv"
    calibrated_context = replace(context(90), calibrated=others)
    write_report(task, samples, guess, calibrated_context, path, tmp_path, {"run": "one", "split": "test"})
    rows = read_results(tmp_path / "in-hospital-mortality.csv").query("label == 'macro'").set_index("metric")
    for way, other in others.items():
        want = by_name(compute_scores(task, truth, other, subject=samples.subject_id))
        for metric in ("brier", "ece"):
            row = rows.loc[f"{metric}_{way}"]
            assert row["value"] == pytest.approx(want["macro", metric]["value"])
            assert row["low"] <= row["value"] <= row["high"]
        np.testing.assert_allclose(pd.read_csv(path)[way], other[:, 0])
    assert f"auroc_{way}" not in rows.index


def test_a_gap_of_one_sample_drawn_in_two_groups_is_nothing() -> None:
    task, draw = TASKS["in-hospital-mortality"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (40, 1)).astype(float), draw.random((40, 1))
    twice = [np.concatenate([part, part]) for part in (truth, guess, np.arange(40))]
    samples, sex = make_samples(twice[0], subject_id=twice[2]), np.repeat(["F", "M"], 40)
    found = by_name(score_with_intervals(task, samples, twice[1], context(80, 30, sex=sex))[0])
    gap = found["macro[sex]", "auroc_gap"]
    assert (gap["value"], gap["low"], gap["high"]) == (0, 0, 0)  # both groups see the same draws of subjects


def test_length_of_stay_is_judged_in_hours_of_the_train_split() -> None:
    task, hours = TASKS["length-of-stay"], np.array([[2.0], [4.0], [30.0], [np.nan]])
    train = make_samples(task.encode(hours))
    means = class_means(task, replace(train, raw_labels=hours))
    assert means[:2].tolist() == [3, 30] and np.isnan(means[2:]).all()
    truth, guess = np.array([[5.0], [20.0], [34.0]]), np.eye(10)[[0, 0, 1]]
    samples = replace(make_samples(task.encode(truth)), raw_labels=truth)
    found = by_name(score_with_intervals(task, samples, guess, replace(context(3), class_means=means))[0])
    assert found["macro", "mad"]["value"] == (2 + 17 + 4) / 3
    assert found["y_true", "mse"]["value"] == (4 + 289 + 16) / 3
    assert found["macro", "mape"]["low"] <= found["macro", "mape"]["value"] < found["macro", "mape"]["high"]
    assert {name for _, name in found} == {"kappa", "accuracy", "mad", "mse", "mape"}


def test_resamples_without_a_value_are_counted_in_the_text(tmp_path: Path) -> None:
    task = TASKS["in-hospital-mortality"]
    truth = (np.arange(20) < 3).astype(float)[:, None]  # three positive subjects, often none in a resample
    samples, guess = make_samples(truth, subject_id=np.arange(20)), np.linspace(0, 1, 20)[:, None]
    path = tmp_path / "predictions_test.csv"
    text = write_report(task, samples, guess, context(20, 100), path, tmp_path, {"run": "one"})
    assert "[" in text.splitlines()[1]
    assert re.search(r"resamples of 100 without a value, which the intervals ignore: y_true \([1-9]", text)


def test_of_many_labels_without_a_value_in_resamples_those_with_most_are_named() -> None:
    parts = {name: [np.full(n, np.nan), np.zeros(9 - n)] for n, name in enumerate("abcdefgh")}
    missing = {(name, "auroc"): np.concatenate(part) for name, part in parts.items()}
    assert _undefined_note(missing, 9, "abcdefgh") == [
        "resamples of 9 without a value, which the intervals ignore: h (7), g (6), f (5), e (4), d (3) "
        "and fewer in 2 others"
    ]


def test_resamples_without_a_value_are_not_counted_where_there_is_no_interval(tmp_path: Path) -> None:
    """The score that a single subject decides has none."""
    task = TASKS["in-hospital-mortality"]
    samples, guess = make_samples(np.eye(20)[:, :1], subject_id=np.arange(20)), np.linspace(0, 1, 20)[:, None]
    path = tmp_path / "predictions_test.csv"
    text = write_report(task, samples, guess, context(20, 100), path, tmp_path, {"run": "one"})
    assert "[" not in text.splitlines()[1] and "without a value" not in text


def test_subgroups_of_samples_come_from_their_stays(tmp_path: Path) -> None:
    store = Store.open(write_store(tmp_path / "store"))
    stays = store.stays().iloc[[3, 0, 3]]
    samples = make_samples(np.zeros((3, 1)), stay_id=stays["stay_id"].to_numpy())
    samples = replace(samples, cxr_row=np.array([7, -1, 0]))
    found = sample_subgroups(store, samples, ("sex", "age"))
    assert found["sex"].tolist() == stays["sex"].tolist() and list(found) == ["sex", "age"]
    assert sample_subgroups(store, samples, ()).shape == (3, 0)
    both = sample_subgroups(store, samples, ("sex+has_xray", "has_xray"))
    assert both["sex+has_xray"].tolist() == [
        f"{sex} + {'no' if n == 1 else 'yes'}" for n, sex in enumerate(stays["sex"])
    ]
    assert both["has_xray"].tolist() == ["yes", "no", "yes"]
    with pytest.raises(ValueError, match="does not have what the subgroups admission, years need"):
        sample_subgroups(store, samples, ("admission", "sex+years"))


def test_another_subgroup_is_refused() -> None:
    with pytest.raises(
        ValueError, match="--subgroups age,insurance: insurance must be one of age, sex, race"
    ):
        parse_subgroups("age,insurance")
    with pytest.raises(ValueError, match=r"sex\+sex has a variable twice"):
        parse_subgroups("sex+sex")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["in-hospital-mortality", "length-of-stay"])
def test_scores_computed_from_the_predictions_are_the_results_to_the_last_digit(
    tmp_path: Path, name: str, dtype: type
) -> None:
    """The file is read here without any of our code, as a user would read it."""
    task, rng = TASKS[name], np.random.default_rng(3)
    truth = rng.integers(0, task.classes, (200, 1)).astype(np.float32)
    guess = rng.dirichlet(np.ones(task.classes), 200).astype(dtype)
    guess = guess if task.kind == "ordinal" else guess[:, :1].round(2)  # with ties
    path = tmp_path / "predictions_test.csv"
    write_report(task, make_samples(truth), guess, context(200), path, tmp_path, {"run": "one"})
    results = (
        pd.read_csv(tmp_path / f"{name}.csv").query("label == @task.labels[0]").set_index("metric")["value"]
    )
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    probability = np.array([float(row["probability"]) for row in rows]).reshape(guess.shape)
    scores = compute_scores(task, truth, probability)
    assert {score["metric"]: score["value"] for score in scores if score["label"] == task.labels[0]} == {
        metric: results[metric] for metric in results.index if metric in {score["metric"] for score in scores}
    }
    np.testing.assert_array_equal(probability, guess.astype(np.float64))
