"""Features of frozen encoders: encoded once for all runs, and the same as without keeping them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.schema import Batch
from datasets.store import Store
from models.encoders import CXREncoder
from models.encoders.lstm import LSTMEncoder
from tests.random_store import write_random_store
from tests.stores import write_store
from tests.test_fusions import SUPERVISED, probabilities, run
from training.feature_cache import FeatureCache, weights_hash

SHAPE = ("--ehr_dim", "8", "--vision_backbone", "resnet18")
PROBE = ("--protocol", "lineareval", "--fusion", "cxr", "--data_pairs", "cxr")
RECORD_PROBE = ("--protocol", "lineareval", "--fusion", "ehr", "--data_pairs", "ehr_all")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Classifiers of one modality each."""
    folder = tmp_path_factory.mktemp("unimodal")
    for name in ("ehr", "cxr"):
        run(store, folder, *SUPERVISED, *SHAPE, "--fusion", name, "--name", name)
    return {name: folder / name / "best.ckpt" for name in ("ehr", "cxr")}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many X-rays each call of an image encoder reads."""
    counts: list[int] = []
    forward = CXREncoder.forward

    def counting(self: CXREncoder, cxr: torch.Tensor) -> torch.Tensor:
        counts.append(len(cxr))
        return forward(self, cxr)

    monkeypatch.setattr(CXREncoder, "forward", counting)
    return counts


def test_an_xray_is_encoded_once_for_all_tasks_and_seeds(
    store: Path, trained: dict[str, Path], encoded: list[int], tmp_path: Path
) -> None:
    flags = (*PROBE, "--load_state_cxr", trained["cxr"])
    run(store, tmp_path, *flags, "--task", "phenotyping", "--no-keep_features", "--name", "none")
    needed = sum(encoded)
    assert needed and not store.with_name("store.features").exists()
    encoded.clear()
    runs = {"first": ("phenotyping", "0"), "seed": ("phenotyping", "1"), "task": ("readmission", "0")}
    for name, (task, seed) in runs.items():
        run(store, tmp_path, *flags, "--task", task, "--seed", seed, "--name", name)
    assert sum(encoded) == needed
    assert np.array_equal(probabilities(tmp_path / "none"), probabilities(tmp_path / "first"))
    folders = list(store.with_name("store.features").iterdir())
    run(store, tmp_path, *flags, "--task", "phenotyping", "--image_size", "48", "--name", "larger")
    assert sum(encoded) == 2 * needed and len(list(folders[0].parent.iterdir())) == 2
    assert "-32-square-" in folders[0].name


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each call of a record encoder reads."""
    counts: list[int] = []
    features = LSTMEncoder.sample_features

    def counting(self: LSTMEncoder, batch: Batch) -> torch.Tensor:
        counts.append(len(batch.row))
        return features(self, batch)

    monkeypatch.setattr(LSTMEncoder, "sample_features", counting)
    return counts


def test_a_record_is_encoded_once_for_all_seeds_and_batches(
    trained: dict[str, Path], read: list[int], tmp_path: Path
) -> None:
    store = write_random_store(tmp_path / "store")
    flags = (*RECORD_PROBE, "--load_state_ehr", trained["ehr"], "--task", "phenotyping")
    run(store, tmp_path, *flags, "--no-keep_features", "--name", "none")
    needed = sum(read)
    assert needed and not store.with_name("store.features").exists()
    run(store, tmp_path, *flags, "--name", "first")
    assert sum(read) == 2 * needed
    run(store, tmp_path, *flags, "--name", "second")
    run(store, tmp_path, *flags, "--seed", "1", "--batch_size", "3", "--name", "seed")
    assert sum(read) == 2 * needed
    for name in ("first", "second"):
        assert np.array_equal(probabilities(tmp_path / "none"), probabilities(tmp_path / name))


@pytest.mark.parametrize("other", [("--task", "readmission"), ("--fold", "1/2")])
def test_records_of_another_task_or_split_are_other_inputs(
    read: list[int], tmp_path: Path, other: tuple[str, str]
) -> None:
    """A task ends records at its own times, and the train split is what hours are normalised by."""
    store = write_random_store(tmp_path / "store")
    flags = (*RECORD_PROBE, "--load_state", "random", "--ehr_dim", "8", "--task", "phenotyping")
    run(store, tmp_path, *flags, *other, "--no-keep_features", "--name", "none")
    run(store, tmp_path, *flags, "--name", "first")
    before = sum(read)
    run(store, tmp_path, *flags, *other, "--name", "other")
    assert sum(read) > before and len(list(store.with_name("store.features").iterdir())) == 2
    assert np.array_equal(probabilities(tmp_path / "none"), probabilities(tmp_path / "other"))


def test_records_that_end_inside_an_hour_are_told_apart(read: list[int], tmp_path: Path) -> None:
    store = write_store(tmp_path / "store")
    task = ("--task", "radiology", "--data_pairs", "partial", "--load_state", "random", "--ehr_dim", "8")
    run(store, tmp_path, *RECORD_PROBE, *task, "--no-keep_features", "--name", "none")
    run(store, tmp_path, *RECORD_PROBE, *task, "--name", "first")
    before = len(read)
    run(store, tmp_path, *RECORD_PROBE, *task, "--name", "second")
    assert len(read) == before
    for name in ("first", "second"):
        assert np.array_equal(probabilities(tmp_path / "none"), probabilities(tmp_path / name))


def test_records_of_an_hourly_task_are_not_kept(read: list[int], tmp_path: Path) -> None:
    store = write_store(tmp_path / "store")
    flags = (*RECORD_PROBE, "--load_state", "random", "--ehr_dim", "8", "--task", "decompensation")
    run(store, tmp_path, *flags)
    assert sum(read) and not store.with_name("store.features").exists()


def test_a_fusion_with_frozen_encoders_may_train_on_central_views(
    store: Path, trained: dict[str, Path], encoded: list[int], tmp_path: Path
) -> None:
    flags = (*SUPERVISED, "--fusion", "early", "--data_pairs", "partial", "--image_size", "40")
    states = ("--load_state_ehr", trained["ehr"], "--load_state_cxr", trained["cxr"])
    run(store, tmp_path, *flags, *states, "--frozen_views", "central", "--name", "first")
    assert 0 < sum(encoded) <= len(Store.open(store).cxr)
    encoded.clear()
    run(store, tmp_path, *flags, *states, "--frozen_views", "central", "--epochs", "2", "--name", "second")
    assert not encoded
    test = ("--mode", "eval", "--load_state", tmp_path / "first" / "best.ckpt")
    run(store, tmp_path, *flags, *test, "--name", "again")
    assert np.allclose(probabilities(tmp_path / "first"), probabilities(tmp_path / "again"), atol=1e-6)
    with pytest.raises(ValueError, match="--frozen_views central is for training a fusion"):
        run(store, tmp_path, *SUPERVISED, "--fusion", "joint", "--frozen_views", "central")


def test_processes_may_add_the_same_images_and_one_may_die(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features")
    assert not len(cache.read()[0])
    cache.add(np.array([1, 4]), np.array([[1.0], [4.0]], np.float32))
    cache.add(np.array([0, 4]), np.array([[0.0], [4.0]], np.float32))
    (cache.folder / "dead.npz.partial").write_bytes(b"half")
    rows, features = cache.read()
    assert rows.tolist() == [0, 1, 4] and features.tolist() == [[0], [1], [4]]
    next(cache.folder.glob("*.npz")).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"npz: damaged .*; remove it, and it is made again"):
        cache.read()


def test_a_folder_that_cannot_be_written_to_is_said_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not FeatureCache(tmp_path / "file" / "features").can_write()


def test_every_weight_and_the_normalisation_count() -> None:
    torch.manual_seed(0)
    encoder, other = (CXREncoder("resnet18", pretrained, download=False) for pretrained in (False, True))
    other.load_state_dict(encoder.state_dict())
    before = weights_hash(encoder)
    assert before == weights_hash(encoder.train()) != weights_hash(other)
    with torch.no_grad():
        encoder.stages[4][1].bn2.running_mean[3] += 1e-3
    assert weights_hash(encoder) != before
