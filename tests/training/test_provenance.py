"""A checkpoint carries the subjects it was trained on, and is refused by a store that holds them out."""

import shutil
from pathlib import Path

import pytest
import torch

from datasets.store import Store
from tests.stores import refresh_manifests, write_store
from training.provenance import check_no_leakage, lineage
from utils import checkpoint


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Ten stays; train has subjects 0, 1, 2, 5, 6, 7 (+ 10,000,000), val 3 and 8, test 4 and 9."""
    return Store.open(write_store(tmp_path / "store", stays=10, images=5))


def resplit(store: Store, folder: Path, **moved: list[int]) -> Store:
    """The store with some subjects moved to other splits."""
    stays = store.stays()
    for split, numbers in moved.items():
        stays.loc[stays["subject_id"].isin([10_000_000 + n for n in numbers]), "split"] = split
    shutil.copytree(store.folder, folder)
    stays.to_parquet(folder / "stays.parquet")
    refresh_manifests(folder)
    return Store.open(folder)


def trained_on(store: Store, path: Path, *begun_with: Path) -> Path:
    checkpoint.save(path, {"parts": {}, "config": {}, "epoch": 0, **lineage(store, begun_with)})
    return path


def numbers(record: dict[str, torch.Tensor], split: str) -> list[int]:
    return (record[split] - 10_000_000).tolist()


def test_a_checkpoint_tells_its_subjects_without_pickle(store: Store, tmp_path: Path) -> None:
    record = checkpoint.load(trained_on(store, tmp_path / "a.ckpt"))["subjects"]
    assert numbers(record, "train") == [0, 1, 2, 5, 6, 7] and numbers(record, "val") == [3, 8]
    check_no_leakage(store, tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({"test": [1, 2]}, r"trained or selected on 2 subjects in the test split .*first: 10000001"),
        ({"test": [3]}, "trained or selected on 1 subjects in the test split"),  # it chose the epoch
        ({"val": [5]}, "trained or selected on 1 subjects in the val split"),
    ],
)
def test_subjects_that_a_checkpoint_knows_are_not_held_out(
    store: Store, tmp_path: Path, moved: dict[str, list[int]], message: str
) -> None:
    path = trained_on(store, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message):
        check_no_leakage(resplit(store, tmp_path / "other", **moved), path)
    with pytest.raises(ValueError, match="use a store with the split that it was trained"):
        lineage(resplit(store, tmp_path / "again", **moved), [path])


def test_subjects_that_were_held_out_may_be_learnt_from(store: Store, tmp_path: Path) -> None:
    path = trained_on(store, tmp_path / "a.ckpt")
    known = check_no_leakage(resplit(store, tmp_path / "other", train=[3, 4], val=[9]), path)
    assert set(known["train"] - 10_000_000) == {0, 1, 2, 5, 6, 7}  # as before


def test_what_a_model_began_with_is_not_forgotten(store: Store, tmp_path: Path) -> None:
    first = trained_on(store, tmp_path / "first.ckpt")
    other = resplit(store, tmp_path / "other", train=[4])
    second = trained_on(other, tmp_path / "second.ckpt", first)
    assert numbers(checkpoint.load(second)["subjects"], "train") == [0, 1, 2, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="trained or selected on 1 subjects in the test split"):
        check_no_leakage(store, second)


def test_a_checkpoint_that_does_not_tell_is_refused(store: Store, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "old.ckpt", {"parts": {}, "config": {}, "epoch": 0})
    with pytest.raises(ValueError, match=r"old\.ckpt does not list its training subjects.*train it again"):
        check_no_leakage(store, tmp_path / "old.ckpt")
