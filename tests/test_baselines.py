"""The floors: fitted, chosen by validation, and in the same tables as networks."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from datasets.extract_config import ExtractConfig
from datasets.samples import load_samples
from datasets.store import Store
from evaluation.results import ENCODERS, NO_ENCODER
from evaluation.tables import summary
from tasks import TASKS
from tests.random_cohort import random_cohort
from tests.random_store import STAYS, write_random_store
from tests.stores import extract_with_samples
from training import baselines
from training.baselines import MODELS, BaselineConfig, Candidate, fit_baseline
from utils.config import parse

FAST = ("--bootstrap", "20")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("cohort")
    iv, cxr = random_cohort(3).write(folder / "raw")
    extract_with_samples(ExtractConfig(mimic_iv=iv, mimic_cxr=cxr, out=folder / "store"))
    return Store.open(folder / "store")


def run(store: Path, folder: Path, *flags: str) -> Path:
    paths = ("--store", str(store), "--save_dir", str(folder), "--results_dir", str(folder / "results"))
    config = parse(BaselineConfig, [*paths, *FAST, *flags])
    fit_baseline(config)
    return folder / (config.name or f"{config.task}-baseline-{config.model}-seed{config.seed}")


@pytest.mark.parametrize(
    ("model", "task"),
    [
        *(("logistic_regression", task) for task in TASKS),
        ("gradient_boosting", "in-hospital-mortality"),
        ("gradient_boosting", "length-of-stay"),
    ],
)
def test_every_task_has_predictions_and_rows(
    store: Path, tmp_path: Path, model: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "ROUNDS", (2, 3))
    monkeypatch.setattr(baselines, "PENALTIES", (0.1, 1.0))
    folder = run(store, tmp_path, "--task", task, "--model", model)
    table = pd.read_csv(folder / "predictions_test.csv")
    assert len(table) == STAYS["test"] * TASKS[task].outputs
    assert table["probability"].between(0, 1).all()
    rows = pd.read_csv(tmp_path / "results" / f"{task}.csv")
    assert set(rows["protocol"]) == {"baseline"} and set(rows["fusion"]) == {model}
    assert set(rows[list(ENCODERS)].to_numpy().ravel()) == {NO_ENCODER}
    assert set(rows["split"]) == {"val", "test"} and (rows["low"] <= rows["high"])[rows["low"].notna()].all()
    assert "baseline" in summary(tmp_path / "results") and model in summary(tmp_path / "results")


def test_a_baseline_is_scikit_learns_model_with_the_best_validation_score(
    extracted: Store, tmp_path: Path
) -> None:
    folder = run(extracted.folder, tmp_path, "--task", "decompensation", "--every_hours", "12")
    config = BaselineConfig(store=extracted.folder, every_hours=12)
    samples = {
        split: load_samples(extracted, TASKS["decompensation"], split, config.data(), 0)
        for split in ("train", "val", "test")
    }
    features = {split: baselines.summarize(extracted, part) for split, part in samples.items()}
    observed = ~np.isnan(features["train"]).all(axis=0)
    mean, deviation = (
        f(features["train"][:, observed], axis=0, dtype=float) for f in (np.nanmean, np.nanstd)
    )
    deviation[deviation < 1e-7] = 1
    scaled = {
        split: np.nan_to_num(np.clip((part[:, observed] - mean) / deviation, -10, 10)).astype(np.float32)
        for split, part in features.items()
    }
    found = []
    for strength in (1e-3, 1e-2, 1e-1, 1.0):
        model = LogisticRegression(C=strength, max_iter=1000).fit(
            scaled["train"], samples["train"].labels[:, 0]
        )
        val, test = (model.predict_proba(scaled[split])[:, 1] for split in ("val", "test"))
        found.append((rank_auc(samples["val"].labels[:, 0], val), -strength, test))
    expected = max(found, key=lambda entry: entry[:2])[2]
    probability = pd.read_csv(folder / "predictions_test.csv")["probability"]
    assert np.allclose(probability, expected, atol=1e-6)


def rank_auc(truth: np.ndarray, score: np.ndarray) -> float:
    """The share of pairs in order, ties counting half; 0 if there is no pair."""
    pairs = score[truth == 1][:, None] - score[truth == 0]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0))) if pairs.size else 0.0


def test_trees_use_the_first_rounds_of_one_fit() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(80, 4)).astype(np.float32)
    features[draw.random(features.shape) < 0.3] = np.nan
    target = (np.nan_to_num(features[:, 0]) > 0).astype(np.float32)
    found = baselines._fit_trees(features, target, 7, 0)(features)
    for probability, rounds in zip(found, baselines.ROUNDS, strict=True):
        model = HistGradientBoostingClassifier(
            learning_rate=0.1, max_iter=rounds, max_leaf_nodes=7, early_stopping=False, random_state=0
        )
        assert np.allclose(probability, model.fit(features, target).predict_proba(features))


def test_features_never_observed_labels_of_one_class_and_unknown_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw, task = np.random.default_rng(0), TASKS["phenotyping"]
    features = draw.normal(size=(30, 4)).astype(np.float32)
    features[:, 2] = np.nan  # which the trees of scikit-learn 1.9.1 refuse
    labels = draw.integers(0, 2, (30, 25)).astype(np.float32)
    labels[:, 3], labels[:, 4], labels[5:, 5] = 0, np.nan, np.nan
    monkeypatch.setattr(baselines, "ROUNDS", (2, 3))
    for model in MODELS:
        for fit in baselines.fit_all(task, model, features, labels, 0):
            for probability in fit.predict(draw.normal(size=(7, 4)).astype(np.float32)):
                assert probability.shape == (7, 25) and np.isfinite(probability).all()
                assert not probability[:, 3:5].any() and probability[:, 6].any()


def test_predictions_are_the_same_some_samples_at_a_time(
    extracted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = load_samples(extracted, TASKS["decompensation"], "test", BaselineConfig().data(), 0)
    fits = [baselines.Fit(("a",), lambda features: [features], lambda features: features)]
    (whole,) = baselines.predict_all(fits, extracted, samples)
    monkeypatch.setattr(baselines, "SAMPLES_AT_ONCE", 2)
    (parts,) = baselines.predict_all(fits, extracted, samples)
    assert np.array_equal(whole, parts, equal_nan=True) and len(whole) == len(samples) > 2


def test_the_choice_is_by_validation_alone() -> None:
    task, samples = TASKS["in-hospital-mortality"], SimpleNamespace(labels=np.array([[0.0], [1.0]]))
    samples.subject_id = np.arange(2)
    good, bad = np.array([[0.1], [0.9]]), np.array([[0.9], [0.1]])
    found = [Candidate("a", bad, good), Candidate("b", good, bad), Candidate("c", good, good)]
    assert baselines.choose(task, samples, found).settings == "b"
    samples.labels = np.array([[0.0], [0.0]])
    assert baselines.choose(task, samples, found).settings == "a"


def test_training_samples_are_drawn_with_the_seed(extracted: Store) -> None:
    config = BaselineConfig(store=extracted.folder)
    samples = load_samples(extracted, TASKS["decompensation"], "train", config.data(), 0)
    few = [baselines.draw(samples, 10, seed) for seed in (0, 0, 1)]
    assert all(len(part) == 10 and (np.diff(part.offset) >= 0).all() for part in few)
    assert np.array_equal(few[0].end_hours, few[1].end_hours)
    assert not np.array_equal(few[0].end_hours, few[2].end_hours)
    assert baselines.draw(samples, len(samples), 0) is samples


def test_a_refused_run_leaves_the_records_of_the_first(store: Path, tmp_path: Path) -> None:
    folder = run(store, tmp_path, "--name", "it")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(FileExistsError, match="it holds a run; choose another --name"):
        run(store, tmp_path, "--name", "it", "--seed", "1", "--bootstrap", "7")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_second_run_and_wrong_settings_are_refused(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path, "--name", "it")
    with pytest.raises(FileExistsError, match="it holds a run; choose another --name"):
        run(store, tmp_path, "--name", "it")
    for wrong, message in (("most_samples", "2 or more"), ("bootstrap", "0 or more")):
        with pytest.raises(ValueError, match=f"--{wrong} must be {message}"):
            BaselineConfig(**{wrong: -1})
