"""Predictions say what was predicted of whom, and are read back as they were written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.predictions import read_predictions, to_arrays, write_predictions
from tests.samples import make_samples


def test_predictions_hold_one_line_a_sample_and_label(tmp_path: Path) -> None:
    samples = make_samples(np.array([[0, 1], [1, np.nan]]), np.array([7, 8]), np.array([3, 4]))
    samples = replace(samples, end_hours=np.array([48.0, 24.5]))
    probability = np.array([[0.25, 0.5], [0.125, 0.75]], np.float32)
    path = tmp_path / "p.csv"
    write_predictions(path, samples, ["a", "b, c"], probability)
    assert path.read_text().splitlines() == [
        "stay_id,subject_id,end_hours,label,truth,probability,has_xray",
        "7,3,48.0,a,0,0.25,1",
        '7,3,48.0,"b, c",1,0.5,1',
        "8,4,24.5,a,1,0.125,1",
        '8,4,24.5,"b, c",,0.75,1',
    ]
    predictions = to_arrays(read_predictions(path), path)
    assert predictions.kind == "multilabel" and predictions.labels == ("a", "b, c")
    assert predictions.subject_id.tolist() == [3, 4]
    np.testing.assert_array_equal(predictions.truth, samples.labels)
    np.testing.assert_array_equal(predictions.probability, probability)


def test_predictions_of_bins_hold_one_line_a_bin(tmp_path: Path) -> None:
    path, truth = tmp_path / "p.csv", np.array([[2], [np.nan]])
    probability = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    write_predictions(path, make_samples(truth), ["los"], probability)
    table = pd.read_csv(path)
    assert table.label.tolist() == ["los[0]", "los[1]", "los[2]"] * 2
    assert table.truth.tolist()[:3] == [0, 0, 1] and table.truth[3:].isna().all()
    assert table.probability.tolist() == probability.ravel().tolist()
    predictions = to_arrays(read_predictions(path), path)
    assert predictions.kind == "ordinal" and predictions.labels == ("los",)
    np.testing.assert_array_equal(predictions.truth, truth)


def test_predictions_of_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must both be \(2, 1\)"):
        write_predictions(tmp_path / "p.csv", make_samples(np.zeros((2, 2))), ["a"], np.zeros((2, 2)))


def test_a_label_that_looks_like_a_number_or_nothing_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_predictions(path, make_samples(np.zeros((2, 2))), ["001", "None"], np.zeros((2, 2)))
    assert read_predictions(path)["label"].tolist() == ["001", "None"] * 2


def test_files_that_are_missing_cut_or_of_a_former_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    with pytest.raises(ValueError, match=r"p\.csv is missing; give the folder"):
        read_predictions(path)
    write_predictions(path, make_samples(np.zeros((2, 2))), ["a", "b"], np.zeros((2, 2)))
    table = read_predictions(path)
    with pytest.raises(ValueError, match="it was cut; evaluate again"):
        to_arrays(table[:-1], path)
    table.drop(columns="subject_id").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"no column subject_id; give .* evaluate again if a former version"):
        read_predictions(path)
    table[["stay_id"]].to_csv(path, index=False)
    with pytest.raises(ValueError, match="no column subject_id, end_hours, label, truth, probability; give"):
        read_predictions(path)
