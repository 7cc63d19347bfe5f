"""Two runs are compared on the same draws of the same samples, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resamples
from evaluation.compare import Compare, compare, print_comparison
from evaluation.predictions import write_predictions
from tests.samples import make_samples

STAYS = np.arange(300, 420)
SUBJECTS = 10 + STAYS // 2


def write_run(
    folder: Path, truth: np.ndarray, guess: np.ndarray, labels: tuple[str, ...] = ("a", "b")
) -> Path:
    """A run's folder."""
    folder.mkdir()
    n = len(truth)
    samples = make_samples(truth, STAYS[:n], SUBJECTS[:n])
    write_predictions(folder / "predictions_test.csv", samples, labels, guess)
    return folder


@pytest.fixture
def truth() -> np.ndarray:
    """Two labels of 120 stays, some unknown."""
    source = np.random.default_rng(0)
    labels = source.integers(0, 2, (120, 2)).astype(float)
    labels[:9, 1] = np.nan
    return labels


def guesses(truth: np.ndarray, strength: float, seed: int) -> np.ndarray:
    return np.nan_to_num(truth) * strength + np.random.default_rng(seed).random(truth.shape)


def test_a_difference_is_that_of_the_scores_on_the_same_draws(truth: np.ndarray, tmp_path: Path) -> None:
    guess = [guesses(truth, strength, seed) for seed, strength in enumerate((0.2, 0.9))]
    runs = [write_run(tmp_path / name, truth, g) for name, g in zip("ab", guess, strict=True)]
    table = compare(Compare(tuple(runs), labels=True, resamples=80)).set_index(["label", "metric"])
    resamples = Resamples.of(SUBJECTS, 80, 0)
    area = [bootstrap.areas(resamples, truth, g)[0] for g in guess]
    for place, label in enumerate(("a", "b")):
        row = table.loc[label, "auroc"]
        one, two = (metrics.auroc(truth[:, place], g[:, place]) for g in guess)
        assert (row["a"], row["b"], row["difference"]) == pytest.approx((one, two, two - one))
        rarer = min(len(set(SUBJECTS[truth[:, place] == value])) for value in (0, 1))
        want = bootstrap.interval(two - one, area[1][:, place] - area[0][:, place], rarer)
        assert (row["low"], row["high"]) == pytest.approx(want)
    macro = table.loc["macro", "auroc"]
    assert macro["low"] > 0 and macro["p"] < 0.001 and macro["n"] == 231
    assert macro["better"] == "b"


def test_a_run_does_not_differ_from_itself(truth: np.ndarray, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", truth, guesses(truth, 0.3, 0))
    table = compare(Compare((run, run), resamples=20))
    assert set(table["label"]) == {"macro"} and set(table["metric"]) == {"auroc", "auprc", "brier", "ece"}
    assert (table[["difference", "low", "high"]] == 0).all(axis=None) and (table["p"] == 1).all()
    assert (table["better"] == "").all()


def test_runs_of_length_of_stay_are_compared_by_kappa(tmp_path: Path, capsys: object) -> None:
    truth = np.random.default_rng(0).integers(0, 3, (120, 1)).astype(float)
    truth[3] = np.nan
    right = np.eye(3)[np.nan_to_num(truth[:, 0]).astype(int)]
    runs = [
        write_run(tmp_path / "a", truth, np.roll(right, 1, axis=0), ("los",)),
        write_run(tmp_path / "b", truth, right, ("los",)),
    ]
    table = compare(Compare(tuple(runs), resamples=40)).set_index("metric")
    assert table.loc["kappa", "b"] == 1 and table.loc["accuracy", "n"] == 119
    print_comparison(Compare(tuple(runs), resamples=5))
    assert "kappa" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "named"), [("fewer", "rows"), ("truth", "truth"), ("label", "label")])
def test_runs_on_other_samples_are_refused(
    truth: np.ndarray, tmp_path: Path, change: str, named: str
) -> None:
    one = write_run(tmp_path / "a", truth, guesses(truth, 0.3, 0))
    labels = ("a", "c") if change == "label" else ("a", "b")
    other = (
        truth[:100] if change == "fewer" else np.where(truth == 1, 0, truth) if change == "truth" else truth
    )
    two = write_run(tmp_path / "b", other, guesses(other, 0.3, 0), labels)
    with pytest.raises(ValueError, match=rf"of different samples \(.*{named}.*evaluate both"):
        compare(Compare((one, two)))


def test_a_run_without_predictions_is_refused(truth: np.ndarray, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", truth, guesses(truth, 0.3, 0))
    with pytest.raises(ValueError, match=r"nowhere/predictions_test.csv is missing; give the folder"):
        compare(Compare((run, tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="--resamples must be 1 or more, not 0"):
        Compare((run, run), resamples=0)


def record(run: Path, **changes: str) -> Path:
    """Add the environment.yaml of a run."""
    content = {"settings": "s", "store": "t", "data": "synthetic data"} | changes
    (run / "environment.yaml").write_text(yaml.safe_dump(content))
    return run


def test_the_seeds_of_a_side_are_averaged_in_each_resample(truth: np.ndarray, tmp_path: Path) -> None:
    strengths = {"a0": 0.1, "a1": 0.2, "b0": 0.9, "b1": 0.8, "b2": 0.7}
    guess = {name: guesses(truth, strength, seed) for seed, (name, strength) in enumerate(strengths.items())}
    runs = {name: record(write_run(tmp_path / name, truth, g)) for name, g in guess.items()}
    sides = [tuple(run for name, run in runs.items() if name[0] == side) for side in "ab"]
    table = compare(Compare(sides[0], sides[1], labels=True, resamples=50)).set_index(["label", "metric"])
    resamples = Resamples.of(SUBJECTS, 50, 0)
    area = {name: bootstrap.areas(resamples, truth, g)[0][:, 0] for name, g in guess.items()}
    mean = {side: np.mean([area[name] for name in area if name[0] == side], axis=0) for side in "ab"}
    row = table.loc["a", "auroc"]
    rarer = min(len(set(SUBJECTS[truth[:, 0] == value])) for value in (0, 1))
    want = bootstrap.interval(row["difference"], mean["b"] - mean["a"], rarer)
    assert (row["low"], row["high"]) == pytest.approx(want)
    value = np.mean([metrics.auroc(truth[:, 0], guess[name][:, 0]) for name in ("b0", "b1", "b2")])
    assert row["b"] == pytest.approx(value) and row["better"] == "b"


def test_runs_of_a_side_that_differ_in_more_than_their_seed_are_refused(
    truth: np.ndarray, tmp_path: Path
) -> None:
    runs = [write_run(tmp_path / name, truth, guesses(truth, 0.3, 0)) for name in "abc"]
    with pytest.raises(ValueError, match="does not record its settings"):
        compare(Compare((runs[0], runs[1]), (runs[2],)))
    for change in ({"settings": "other"}, {"store": "other"}):
        record(runs[0]), record(runs[1], **change)
        with pytest.raises(ValueError, match=f"have different {next(iter(change))} .* their seed alone"):
            compare(Compare((runs[0], runs[1]), (runs[2],)))
    with pytest.raises(ValueError, match="a run is given twice"):
        compare(Compare((runs[0], runs[0]), (runs[2],)))
    for wrong in ((runs[0],), tuple(runs)):
        with pytest.raises(ValueError, match=r"compare takes two runs, not .* after --against"):
            Compare(wrong)


def test_a_comparison_says_whose_data_they_are_and_which_way_it_goes(
    truth: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = np.nan_to_num(truth)
    better = record(write_run(tmp_path / "better", truth, 0.1 + 0.8 * known))
    worse = record(write_run(tmp_path / "worse", truth, guesses(truth, 0.0, 1)))
    print_comparison(Compare((worse, better), resamples=60))
    lines = capsys.readouterr().out.splitlines()
    assert "SYNTHETIC data: these scores mean nothing clinically" in lines
    assert lines[0] == f"a: {worse}" and "difference = b - a" in lines[2]
    for metric in ("auroc", "brier"):  # a larger and a smaller value is better
        (line,) = [line for line in lines if f" {metric} " in line]
        assert line.endswith(" b")
    print_comparison(Compare((better,), (better,), resamples=5))
    assert "neither (p 0.05 or more)" in capsys.readouterr().out


def test_a_comparison_of_two_stores_says_so(
    truth: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / name, truth, guesses(truth, 0.3, 0)) for name in "ab"]
    for stores, expected in ((("5a5a", "beef"), True), (("5a5a", "5a5a"), False), (("5a5a", ""), False)):
        for run, store in zip(runs, stores, strict=True):
            record(run, store=store)
        print_comparison(Compare(tuple(runs), resamples=5))
        line = "the runs are of different stores, a of 5a5a and b of beef: "
        assert (line in capsys.readouterr().out) == expected


def test_the_interval_of_few_subjects_keeps_to_differences_that_can_be(tmp_path: Path) -> None:
    truth = np.array([[1.0], [0], [0], [0], [1], [0], [0], [0]])
    good, bad = truth + 0.1, np.array([[0.3], [0.4], [0.5], [0.6], [0.9], [0.1], [0.2], [0.7]])
    runs = [write_run(tmp_path / name, truth, guess, ("a",)) for name, guess in (("x", good / 2), ("y", bad))]
    table = compare(Compare(tuple(runs), labels=True, resamples=200))
    assert table["low"].min() >= -1 and table["high"].max() <= 1
    rows = table[table["metric"].isin(["auroc", "auprc"])]
    assert rows["low"].min() == -1 and (rows["difference"] < 0).all()
