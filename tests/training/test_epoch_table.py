"""The best epoch has the largest validation score, and only complete rows count."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.schema import SPLITS
from evaluation import metrics, results
from tasks import TASKS
from training.epoch_table import best_epoch, best_epochs, epoch_columns, epoch_row, read_epochs, remove_epochs

PHENOTYPING, STAY = TASKS["phenotyping"], TASKS["length-of-stay"]


def test_columns_are_means_then_labels() -> None:
    assert epoch_columns(PHENOTYPING)[:7] == (
        "epoch", "train_auroc", "train_auprc", "val_auroc", "val_auprc", "test_auroc", "test_auprc",
    )  # fmt: skip
    assert epoch_columns(PHENOTYPING)[7] == f"train_auroc[{PHENOTYPING.labels[0]}]"
    assert len(epoch_columns(PHENOTYPING)) == 7 + 3 * 25
    assert not any("auroc" in name or "auprc" in name for name in epoch_columns(STAY))


def test_a_row_has_the_scores_of_every_split() -> None:
    rng = np.random.default_rng(0)
    truth = {split: rng.integers(0, 2, (30, 25)).astype(np.float32) for split in SPLITS}
    probability = {split: rng.random((30, 25), np.float32) for split in SPLITS}
    truth["val"][:, 3] = 1
    row = epoch_row(PHENOTYPING, 4, truth, probability)
    assert set(row) == set(epoch_columns(PHENOTYPING)) and row["epoch"] == 4
    label = PHENOTYPING.labels[7]
    assert row[f"test_auroc[{label}]"] == metrics.auroc(truth["test"][:, 7], probability["test"][:, 7])
    scores = [row[f"val_auroc[{name}]"] for name in PHENOTYPING.labels]
    assert np.isnan(scores[3]) and row["val_auroc"] == pytest.approx(np.nanmean(scores))


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.5, 0.7, 0.6], 11), ([0.7, 0.5, 0.7], 10), ([np.nan, 0.1, np.nan], 11), ([np.nan] * 3, None)],
)
def test_the_best_epoch_validates_best(scores: list[float], best: int | None) -> None:
    table = pd.DataFrame({"epoch": [10, 11, 12], "val_kappa": scores, "test_kappa": [0.9, 0.1, 0.2]})
    assert best_epoch(table, STAY) == best


def test_rows_from_an_epoch_on_are_removed_and_the_others_stay_as_written(tmp_path: Path) -> None:
    path, names = tmp_path / "results_label_length-of-stay.csv", epoch_columns(STAY)
    remove_epochs(path, STAY, 1)
    for epoch, value in ((1, 1 / 3), (2, math.nan), (3, 0.5)):
        results.append_rows(path, names, [dict.fromkeys(names, value) | {"epoch": epoch}], "")
    before = path.read_bytes()
    assert [best_epochs(tmp_path, done) for done in range(4)] == [set(), {1}, {1}, {3}]
    remove_epochs(path, STAY, 4)
    assert path.read_bytes() == before
    remove_epochs(path, STAY, 3)
    assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[:3])
    remove_epochs(path, STAY, 1)
    assert not path.exists()


def test_a_table_is_read_whole_in_order_and_each_epoch_once(tmp_path: Path) -> None:
    path, names = tmp_path / "a.csv", epoch_columns(STAY)
    assert read_epochs(path, STAY).empty
    for epoch, value in ((2, 0.25), (0, 1 / 3), (2, 0.5)):
        results.append_rows(path, names, [dict.fromkeys(names, value) | {"epoch": epoch}], "")
    with open(path, "a") as file:
        file.write("1,0.5")
    table = read_epochs(path, STAY)
    assert table["epoch"].tolist() == [0, 2] and table["val_kappa"].tolist() == [1 / 3, 0.25]
    with pytest.raises(ValueError, match=r"a.csv does not have the columns of phenotyping; move it away"):
        read_epochs(path, PHENOTYPING)
