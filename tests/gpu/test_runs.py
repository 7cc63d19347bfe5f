"""Whole runs on a GPU that computes nothing: store, batches, training, validation and predictions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import numpy as np
import pytest

from datasets import batches
from simclr_trainer import SimCLRConfig
from tests.gpu.fake_cuda import CUDA, fake_cuda
from tests.random_store import write_random_store
from training import classify
from training.classify_config import ClassifyConfig
from training.predict import Predictions
from training.pretraining import pretrain
from utils import checkpoint, distributed
from utils.config import parse
from utils.distributed import Process
from utils.run import Run

SMALL = ("--image_size", "32", "--batch_size", "8", "--epochs", "1")
SHAPE = ("--ehr_dim", "8", "--vision_backbone", "resnet18")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


def inline(
    work: Callable[[int], object], items: Iterable[int], threads: int, each: int, start: None
) -> Generator[object, None, None]:
    """As utils.threads.in_order, in this thread, where the fake GPU is; on a GPU nothing is to `start`."""
    assert start is None
    yield from map(work, items)


def made_up(predictions: Predictions) -> np.ndarray:
    """As many numbers as were predicted, since fake tensors have none."""
    shape = sum(map(len, predictions._values)), predictions._values[0].shape[1]
    return np.random.default_rng(0).uniform(0.1, 0.9, shape).astype(np.float32)


@pytest.fixture(autouse=True)
def nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace what needs numbers, and the threads; return the names of the checkpoints that were made."""
    written: list[str] = []
    monkeypatch.setattr(distributed, "setup", lambda device="auto": Process(device=CUDA))
    monkeypatch.setattr(batches, "in_order", inline)
    monkeypatch.setattr(Run, "log", lambda run, row: None)
    monkeypatch.setattr(checkpoint.Writer, "save", lambda writer, path, content: written.append(path.name))
    monkeypatch.setattr(checkpoint.Writer, "link", lambda writer, existing, path: written.append(path.name))
    monkeypatch.setattr(checkpoint, "load", lambda path: {})
    for name in (
        "load_classifier",
        "feature_cache",
        "report",
        "save_whole_classifier",
        "write_test_embeddings",
    ):
        monkeypatch.setattr(classify, name, lambda *_: None)
    monkeypatch.setattr(Predictions, "in_order", made_up)
    return written


@pytest.mark.parametrize("place", ["cuda", "cpu", "disk"])
def test_pretraining(store: Path, tmp_path: Path, nothing_is_written: list[str], place: str) -> None:
    flags = ("--store", str(store), "--save_dir", str(tmp_path), "--name", "x", "--data_device", place)
    config = parse(SimCLRConfig, [*flags, "--data_pairs", "partial", "--warmup_epochs", "0", *SMALL, *SHAPE])
    with fake_cuda():
        pretrain(config)
    assert nothing_is_written == ["x_epoch_01.ckpt", "best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    "flags",
    [
        "--protocol supervised --fusion joint --task phenotyping --data_pairs partial",
        "--protocol supervised --fusion mmtm --task length-of-stay",
        "--protocol lineareval --load_state random --task decompensation --data_pairs partial",
    ],
)
def test_classification(store: Path, tmp_path: Path, nothing_is_written: list[str], flags: str) -> None:
    paths = ("--store", str(store), "--save_dir", str(tmp_path), "--name", "x")
    config = parse(ClassifyConfig, [*paths, *flags.split(), "--bootstrap", "20", *SMALL, *SHAPE])
    with fake_cuda():
        classify.classify(config)
    assert nothing_is_written == ["best.ckpt", "last.ckpt"]
