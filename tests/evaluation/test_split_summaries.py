"""The summary of a split: paired resamples, calibration and curves, without a row per stay."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.bootstrap import Resamples
from evaluation.compare import Samples as ComparedSamples
from evaluation.plots.calibration import reliability
from evaluation.predictions import read_predictions
from evaluation.roc_curves import compute_curves
from evaluation.scoring import ScoringContext, write_report
from evaluation.summaries import RESAMPLE_SEED, Summary, summary_path
from tasks import TASKS
from tests.samples import make_samples


def score_run(folder: Path, task: str, truth: np.ndarray, seed: int = 0, resamples: int = 20) -> Path:
    """Test a made-up run, and return its predictions."""
    draw, path = np.random.default_rng(seed), folder / "predictions_test.csv"
    folder.mkdir(parents=True, exist_ok=True)
    guess = draw.random((len(truth), TASKS[task].outputs))
    guess /= guess.sum(axis=1, keepdims=True) if TASKS[task].kind == "ordinal" else 1
    context = ScoringContext(pd.DataFrame(index=range(len(truth))), resamples, RESAMPLE_SEED)
    columns = {"run": folder.name, "split": "test"}
    write_report(TASKS[task], make_samples(truth), guess, context, path, folder, columns)
    return path


@pytest.fixture
def truth() -> np.ndarray:
    truth = np.random.default_rng(0).integers(0, 2, (80, 25)).astype(float)
    truth[:9, 1], truth[:, 2] = np.nan, 0
    return truth


def test_it_is_that_of_the_predictions(tmp_path: Path, truth: np.ndarray) -> None:
    path = score_run(tmp_path, "phenotyping", truth)
    written, made = Summary.read(summary_path(path)), Summary.of_predictions(path, 20)
    assert written.samples == made.samples and written.subjects == made.subjects > 1
    assert list(written.resampled) == list(made.resampled) and {"auroc", "ece"} <= set(made.resampled)
    for metric, values in written.resampled.items():
        np.testing.assert_array_equal(values, made.resampled[metric])
    np.testing.assert_array_equal(written.reliability, made.reliability)
    np.testing.assert_array_equal(list(written.curves.values()), list(made.curves.values()))


def test_scores_are_paired_as_in_a_comparison(tmp_path: Path, truth: np.ndarray) -> None:
    compared = ComparedSamples("test", 20, 0)
    for seed in (0, 1):
        path = score_run(tmp_path / str(seed), "phenotyping", truth, seed)
        side, summary = compared.score([path.parent]), Summary.read(summary_path(path))
        np.testing.assert_array_equal(summary.resampled["auprc"], side.resampled["macro", "auprc"])
        assert summary.subjects == side.subjects["macro"].deciding


def test_samples_differ_with_stays_labels_and_truth(tmp_path: Path, truth: np.ndarray) -> None:
    other = truth.copy()
    other[0, 0] = 1 - other[0, 0]
    paths = [
        score_run(tmp_path / name, "phenotyping", labels)
        for name, labels in (("one", truth), ("two", other), ("three", truth[1:]))
    ]
    assert len({Summary.read(summary_path(path)).samples for path in paths}) == 3


def test_bins_and_curves_are_those_of_the_pictures(tmp_path: Path, truth: np.ndarray) -> None:
    path = score_run(tmp_path, "phenotyping", truth)
    summary, known = Summary.read(summary_path(path)), read_predictions(path).dropna(subset=["truth"])
    count, probability, positives = summary.reliability.T
    expected = reliability(known).to_numpy()
    np.testing.assert_allclose(np.stack([probability, positives] / count, axis=1), expected)
    assert count.sum() == len(known)
    draws = Resamples.of(known["subject_id"].to_numpy(), 0, 0)
    for name in ("AUROC", "AUPRC"):
        np.testing.assert_allclose(summary.curves[name], compute_curves(name, known, draws).mean)


def test_an_ordinal_task_has_its_own_scores(tmp_path: Path) -> None:
    path = score_run(tmp_path, "length-of-stay", np.arange(60.0)[:, None] % 10)
    summary = Summary.read(summary_path(path))
    assert list(summary.resampled) == ["kappa", "accuracy"] and set(summary.curves) == {"AUROC", "AUPRC"}


def test_a_split_without_both_classes_or_resamples_has_neither(tmp_path: Path) -> None:
    path = score_run(tmp_path, "in-hospital-mortality", np.zeros((5, 1)), resamples=0)
    summary = Summary.read(summary_path(path))
    assert summary.resampled == {} and summary.curves == {} and summary.reliability[:, 0].sum() == 5


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "summary_test.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no summary of predictions"):
        Summary.read(path)
    np.savez(path.with_name("other.npz"), embeddings=np.zeros(3))
    with pytest.raises(ValueError, match="is no summary of predictions"):
        Summary.read(path.with_name("other.npz"))
