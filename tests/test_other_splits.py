"""Folds from pretraining to result rows: what is recorded, and what is refused as a leak."""

from pathlib import Path

import pandas as pd
import pytest

from datasets.splits import split_by_fold
from evaluation.seeds import over_seeds, select_rows
from evaluation.tables import Table
from simclr_trainer import SimCLRConfig
from tasks import TASKS
from tests.evaluation.result_rows import add_run
from tests.stores import write_store
from training import classify
from training.classify_config import ClassifyConfig
from training.epoch_table import read_epochs
from training.pretraining import pretrain
from training.select_epoch import select_epoch
from training.select_epoch_config import EpochSelectionConfig
from utils import checkpoint
from utils.config import parse

SMALL = ("--image_size", "32", "--batch_size", "8", "--device", "cpu", "--epochs", "1")
TASK = "phenotyping"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("data") / "store", stays=150, images=90)


@pytest.fixture(scope="module")
def pretrained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pretraining of one epoch on fold 1/3."""
    folder = tmp_path_factory.mktemp("pretraining")
    flags = ("--store", store, "--save_dir", folder, "--fold", "1/3", "--warmup_epochs", "0")
    shape = ("--ehr_dim", "8", "--vision_backbone", "test_resnet")
    pretrain(parse(SimCLRConfig, [*map(str, flags), *SMALL, *shape]))
    return folder / f"simclr-{TASK}-fold1of3-seed0"


def run(store: Path, out: Path, *flags: str | Path) -> None:
    paths = ("--store", store, "--save_dir", out, "--results_dir", out / "results", "--bootstrap", "0")
    classify.classify(parse(ClassifyConfig, [*map(str, (*paths, *SMALL, "--task", TASK, *flags))]))


def test_a_fold_is_recorded_and_another_one_is_a_leak(store: Path, pretrained: Path, tmp_path: Path) -> None:
    state = pretrained / "last.ckpt"
    before = checkpoint.load(state)
    subjects = pd.read_parquet(store / "stays.parquet")["subject_id"]
    splits = dict(zip(subjects, split_by_fold(subjects, 1, 3), strict=True))
    assert before["split_by"] == "fold 1/3"
    assert {splits[subject] for subject in before["subjects"]["train"].tolist()} == {"train"}
    run(store, tmp_path, "--load_state", state, "--fold", "1/3")
    name = f"{TASK}-lineareval-concatenation-simclr-fold1of3-seed0"
    trained = tmp_path / name / "best.ckpt"
    assert checkpoint.load(trained)["split_by"] == "fold 1/3"
    tested = pd.read_csv(tmp_path / name / "predictions_test.csv")["subject_id"]
    assert {splits[subject] for subject in tested} == {"test"}
    run(store, tmp_path, "--mode", "eval", "--load_state", trained, "--fold", "1/3")
    rows = pd.read_csv(tmp_path / "results" / f"{TASK}.csv")
    assert set(rows["split_by"]) == {"fold 1/3"} and rows["run"].nunique() == 2
    leak = r"trained or selected on \d+ subjects in the (test|val) split .* with fold 1/3, and this is {}"
    for flags, now in ((("--fold", "2/3"), "fold 2/3"), ((), "the store's split")):
        with pytest.raises(ValueError, match=leak.format(now)):
            run(store, tmp_path, "--load_state", state, "--name", "leaks", *flags)
        with pytest.raises(ValueError, match=leak.format(now)):
            run(store, tmp_path, "--mode", "eval", "--load_state", trained, *flags)
    with pytest.raises(ValueError, match="trained or selected on"):  # also of what it began with
        run(store, tmp_path, "--protocol", "finetune", "--load_state", trained, "--fold", "3/3")


def test_epochs_are_chosen_on_the_fold(store: Path, pretrained: Path) -> None:
    words = ("--run_dir", pretrained, "--store", store, "--task", TASK, *SMALL)
    with pytest.raises(ValueError, match="with fold 1/3, and this is the store's split"):
        select_epoch(parse(EpochSelectionConfig, [*map(str, words)]))
    select_epoch(parse(EpochSelectionConfig, [*map(str, words), "--fold", "1/3"]))
    table = pretrained / f"results_label_{TASK}.csv"
    assert read_epochs(table, TASKS[TASK])["epoch"].tolist() == [1]


def test_other_splits_are_not_averaged(tmp_path: Path) -> None:
    for seed, split_by in ((0, ""), (1, ""), (0, "fold 1/5"), (1, "fold 1/5"), (0, "fold 2/5")):
        add_run(tmp_path, seed, 0.5 + seed / 10, run=f"{split_by}{seed}", split_by=split_by)
    table = over_seeds(select_rows(Table("phenotyping", (tmp_path,))).rows).set_index("split_by")
    assert table["seeds"].to_dict() == {"": 2, "fold 1/5": 2, "fold 2/5": 1}
