"""Net benefit is its formula in loops, in the split and in every resample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from evaluation import bootstrap
from evaluation.bootstrap import Resamples
from evaluation.decision import GRID, DecisionConfig, benefits, main, rows
from evaluation.plots.decision import Decision
from evaluation.predictions import LabelledScores, write_predictions
from tests.samples import make_samples


def slow_benefit(truth: np.ndarray, alert: np.ndarray, threshold: float) -> float:
    """The formula of Vickers & Elkin."""
    hits = sum(1 for y, a in zip(truth, alert, strict=True) if a and y == 1)
    alarms = sum(1 for y, a in zip(truth, alert, strict=True) if a and y == 0)
    return (hits - alarms * threshold / (1 - threshold)) / len(truth)


def cohort(labels: int = 2) -> LabelledScores:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, (50, labels)).astype(float)
    truth[:6, -1] = np.nan
    subject, probability = draw.integers(0, 20, 50), draw.random(truth.shape).round(2)
    names = tuple("abcdefgh"[:labels])
    return LabelledScores(names, np.arange(50), subject, subject > 3, truth, probability)


@pytest.mark.parametrize("label", [0, 1])
def test_net_benefit_is_its_formula_in_the_split_and_in_every_resample(label: int) -> None:
    scores = cohort()
    resamples = Resamples.of(scores.subject_id, 4, 1)
    whole, drawn = benefits(scores, label, resamples)
    indices = [np.arange(50)]
    for number in range(4):
        times = resamples.counts(range(number, number + 1))[0][resamples.subject]
        indices.append(np.repeat(np.arange(50), times))
    for number, index in enumerate(indices):
        index = index[~np.isnan(scores.truth[index, label])]
        truth, probability = scores.truth[index, label], scores.probability[index, label]
        for place in range(0, len(GRID), 7):
            threshold = GRID[place]
            of = whole if number == 0 else drawn
            first = () if number == 0 else (number - 1,)
            want = slow_benefit(truth, probability >= threshold, threshold)
            assert of.model[(*first, place)] == pytest.approx(want)
            want = slow_benefit(truth, np.ones(len(truth), bool), threshold)
            assert of.everyone[(*first, place)] == pytest.approx(want)
    assert (whole.n, whole.positives) == (len(scores.truth) - 6 * label, np.nansum(scores.truth[:, label]))


def test_rows_have_paired_intervals_and_the_mean_of_several_labels() -> None:
    scores = cohort()
    resamples = Resamples.of(scores.subject_id, 40, 0)
    table = pd.DataFrame(rows(scores, resamples))
    assert table["label"].tolist() == [name for name in ("a", "b", "macro") for _ in GRID]
    whole, drawn = benefits(scores, 0, resamples)
    row, place = table[table["label"] == "a"].iloc[30], 30
    gain, drawn_gain = (of.model[..., place] - of.everyone[..., place] for of in (whole, drawn))
    assert row["over_treat_all"] == pytest.approx(gain)
    want = bootstrap.interval(gain, drawn_gain, resamples.subjects)
    assert (row["over_treat_all_low"], row["over_treat_all_high"]) == pytest.approx(want)
    by_label = [table[table["label"] == name].reset_index(drop=True) for name in ("a", "b", "macro")]
    for name in ("net_benefit", "treat_all", "over_treat_all"):
        np.testing.assert_allclose(by_label[2][name], (by_label[0][name] + by_label[1][name]) / 2)
    assert by_label[2]["n"].iloc[0] == 94
    alone = pd.DataFrame(rows(scores.take_labels([0]), resamples))
    assert set(alone["label"]) == {"a"}


def test_no_positives_all_equal_and_one_subject() -> None:
    scores = cohort(1)._replace(truth=np.zeros((50, 1)), probability=np.full((50, 1), 0.35))
    table = pd.DataFrame(rows(scores, Resamples.of(scores.subject_id, 10, 0))).set_index("threshold")
    odds = GRID / (1 - GRID)
    np.testing.assert_allclose(table["treat_all"], -odds)
    np.testing.assert_allclose(table["net_benefit"], np.where(GRID <= 0.35, -odds, 0))
    single = pd.DataFrame(rows(scores, Resamples.of(np.zeros(50), 10, 0)))
    assert single["net_benefit"].notna().all() and single["net_benefit_low"].isna().all()


@pytest.mark.parametrize("labels", [1, 2, 8])
def test_the_command_writes_a_table_and_a_picture(
    labels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = cohort(labels)
    (tmp_path / "environment.yaml").write_text(yaml.safe_dump({"data": "synthetic data"}))
    samples = make_samples(scores.truth, scores.stay_id, scores.subject_id)
    others = {"isotonic": scores.probability**2}
    write_predictions(tmp_path / "predictions_test.csv", samples, scores.labels, scores.probability, others)
    main(DecisionConfig(tmp_path, resamples=5))
    table, picture = tmp_path / "decision_test.csv", tmp_path / "decision_test.png"
    assert capsys.readouterr().out.split() == [str(table), str(picture)]
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 300
    figure, path = Decision(table).draw()
    assert path == picture and "synthetic data" in figure.get_suptitle()
    assert len(figure.axes) == (1 if labels == 8 else labels)  # of many labels, their mean alone
    line = figure.axes[0].get_lines()[0]
    shown = pd.read_csv(table).query("label == @name", local_dict={"name": "macro" if labels == 8 else "a"})
    np.testing.assert_allclose(line.get_ydata(), shown["net_benefit"])
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"act on the prediction", "95 % interval, over subjects", "act for all", "act for none"}
    main(DecisionConfig(tmp_path, resamples=5, calibration="isotonic"))
    calibrated = pd.read_csv(tmp_path / "decision_test_isotonic.csv")
    assert not np.allclose(calibrated["net_benefit"], pd.read_csv(table)["net_benefit"])


def test_what_cannot_be_drawn_is_one_error(tmp_path: Path) -> None:
    scores = cohort(1)
    samples = make_samples(scores.truth * np.nan, scores.stay_id, scores.subject_id)
    write_predictions(tmp_path / "predictions_test.csv", samples, ("a",), scores.probability)
    with pytest.raises(ValueError, match=r"every label of test is unknown; choose another --split"):
        main(DecisionConfig(tmp_path))
    with pytest.raises(ValueError, match=r"has no column temperature"):
        main(DecisionConfig(tmp_path, calibration="temperature"))
    with pytest.raises(ValueError, match="--resamples must be 1 or more"):
        DecisionConfig(tmp_path, resamples=0)
