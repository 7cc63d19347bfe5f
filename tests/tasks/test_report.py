"""A report writes predictions and rows, and its table tells means, groups and what is in no mean."""

from pathlib import Path

import numpy as np
import pandas as pd

from datasets.batches import Samples
from tasks import TASKS
from tasks.report import judge, summary, write_report


def make_samples(labels: np.ndarray) -> Samples:
    count = np.arange(len(labels))
    return Samples(count + 300, *[count] * 4, count + 48.0, count * 0.0, labels.astype(np.float32), labels)


def test_the_table_has_a_line_for_the_mean_and_each_group() -> None:
    task, draw = TASKS["phenotyping"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (40, 25)), draw.random((40, 25))
    lines = summary(task, judge(task, truth, guess)).splitlines()
    assert [line.split()[0] for line in lines] == ["auroc", "macro", *task.groups]
    assert lines[1].split()[-2:] == ["1000", str(truth.sum())]


def test_a_label_of_one_class_is_named_and_left_out() -> None:
    task, draw = TASKS["radiology"], np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (40, 14)), draw.random((40, 14))
    truth[:, 5] = 0
    table = summary(task, judge(task, truth, guess))
    assert table.endswith(f"one class of them: {task.labels[5]}") and "nan" not in table


def test_a_report_adds_rows_and_writes_predictions(tmp_path: Path) -> None:
    task = TASKS["in-hospital-mortality"]
    samples, guess = make_samples(np.array([[0.0], [1.0], [np.nan]])), np.array([[0.2], [0.9], [0.5]])
    predictions = tmp_path / "predictions_test.csv"
    for run in ("one", "two"):
        text = write_report(task, samples, guess, predictions, tmp_path, {"run": run, "split": "test"})
    rows = pd.read_csv(tmp_path / "in-hospital-mortality.csv")
    auroc = rows[(rows["metric"] == "auroc") & (rows["label"] == "y_true")]
    assert auroc["run"].tolist() == ["one", "two"] and auroc["value"].tolist() == [1, 1]
    assert auroc["n"].tolist() == [2, 2] and auroc["positives"].tolist() == [1, 1]
    written = pd.read_csv(predictions)
    assert written["stay_id"].tolist() == [300, 301, 302] and written["truth"].isna().tolist() == [
        False
    ] * 2 + [True]
    assert str(predictions) in text and "in-hospital-mortality.csv" in text
