"""Probes while a pretraining runs find what epoch_evaluation.py finds, and keep the best epochs alone."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.data_config import DataConfig
from datasets.store import Store
from models.encoders import EncoderConfig, build_encoders
from models.pretraining import PARTS
from simclr_trainer import SimCLRConfig
from tests.random_store import write_random_store
from tests.training.toy import same
from tests.utils.ranks import run_on_ranks
from training import epoch_probes, select_epoch
from training.epoch_probes import EpochProbes
from training.epoch_table import best_epochs
from training.pretraining import pretrain
from training.selection import SelectionConfig
from utils import checkpoint
from utils.config import parse
from utils.distributed import Process
from utils.lock import releasing_locks
from utils.run import Run
from utils.run_config import RunConfig

TASK_NAMES = ("phenotyping", "in-hospital-mortality")
SMALL = ("--image_size", "32", "--device", "cpu")
TRAINING = ("--warmup_epochs", "0", "--lr", "0.1", "--ehr_dim", "8", "--vision_backbone", "test_resnet")
PROBE = ("--probe", ",".join(TASK_NAMES), "--probe_epochs", "6")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


def train(store: Path, folder: Path, *flags: str) -> Path:
    """Pretrain for three epochs; return the folder of the run."""
    places = ("--store", str(store), "--save_dir", str(folder), "--name", "pre")
    pretrain(parse(SimCLRConfig, [*places, *SMALL, *TRAINING, "--batch_size", "8", "--epochs", "3", *flags]))
    return folder / "pre"


@pytest.fixture(scope="module")
def probed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was probed after each epoch, with the checkpoints of all."""
    return train(store, tmp_path_factory.mktemp("probed"), *PROBE)


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"results_label_{name}.csv").read_bytes() for name in TASK_NAMES}


def epochs_in(folder: Path) -> list[int]:
    return list(select_epoch.find_checkpoints(folder))


def evaluate(store: Path, folder: Path) -> None:
    """Run epoch_evaluation.py in this process."""
    flags = ("--store", str(store), "--run_dir", str(folder), "--task", ",".join(TASK_NAMES), "--epochs", "6")
    select_epoch.select_epoch(parse(select_epoch.EpochSelectionConfig, [*flags, *SMALL]))


def test_the_tables_are_those_of_the_command_on_the_checkpoints(
    store: Path, probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Path(shutil.copytree(probed, tmp_path / "later"))
    for path in later.glob("results_label*"):
        path.unlink()
    evaluate(store, later)
    for name in TASK_NAMES:
        one, other = (pd.read_csv(folder / f"results_label_{name}.csv") for folder in (probed, later))
        assert one["epoch"].tolist() == [1, 2, 3]
        pd.testing.assert_frame_equal(one, other, rtol=0, atol=1e-6)
        settings = f"results_label_{name}.yaml"
        assert (probed / settings).read_text() == (later / settings).read_text()
        assert (probed / f"results_label_{name}.png").is_file()
        log = pd.read_csv(probed / "log.csv")
        assert np.array_equal(log[f"{name}_auroc"], one["val_auroc"], equal_nan=True)
    monkeypatch.setattr(select_epoch, "probe_task", lambda *_: pytest.fail("probed again"))
    evaluate(store, Path(shutil.copytree(probed, tmp_path / "again")))


def test_probes_change_no_weight(store: Path, probed: Path, tmp_path: Path) -> None:
    plain = train(store, tmp_path)
    assert epochs_in(plain) == epochs_in(probed) == [1, 2, 3]
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (checkpoint.load(folder / name)["parts"] for folder in (plain, probed))
        assert set(one) == set(PARTS) and same(one, other)


def test_a_stopped_run_neither_loses_nor_doubles_a_row_and_keeps_what_it_is_told(
    store: Path, probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the second epoch, between the rows of its two tasks, and resumed."""
    flags, probes = (*PROBE, "--keep", "1"), []

    def stopped_probe(*arguments: object) -> dict[str, float]:
        if len(probes) == 3:
            signal.raise_signal(signal.SIGTERM)
        probes.append(1)
        return select_epoch.probe_task(*arguments)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as left:
        patched.setattr(epoch_probes, "probe_task", stopped_probe)
        train(store, tmp_path, *flags)
    assert left.value.code == 0 and len(probes) == 3
    folder = train(store, tmp_path, *flags, "--resume")
    assert tables(folder) == tables(probed)
    assert set(epochs_in(folder)) == best_epochs(probed, 3) | {3}
    assert checkpoint.load(folder / "best.ckpt")["epoch"] == checkpoint.load(probed / "best.ckpt")["epoch"]


def test_a_run_that_keeps_the_best_is_finished_without_the_state_of_the_optimizer(
    store: Path, probed: Path, tmp_path: Path
) -> None:
    folder = train(store, tmp_path, *PROBE, "--keep", "best")
    last, with_state = (checkpoint.load(run / "last.ckpt") for run in (folder, probed))
    assert same(last["parts"], with_state["parts"])
    assert not last["training"]["optimizer"] and with_state["training"]["optimizer"]
    size, full_size = ((run / "last.ckpt").stat().st_size for run in (folder, probed))
    assert size < 0.6 * full_size  # of LARS, one number for each weight
    assert not (folder / "best.ckpt").exists() and (probed / "best.ckpt").exists()
    assert epochs_in(train(store, tmp_path, *PROBE, "--keep", "best", "--resume")) == epochs_in(folder)
    records = {path: path.read_bytes() for path in folder.glob("*.yaml")}
    with pytest.raises(ValueError, match="--keep best left out"):
        train(store, tmp_path, *PROBE, "--keep", "best", "--epochs", "4", "--resume")
    assert {path: path.read_bytes() for path in folder.glob("*.yaml")} == records


def test_a_resumed_run_first_probes_the_checkpoints_without_a_row(
    store: Path, probed: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(probed, tmp_path / "pre"))
    for path in folder.glob("results_label*"):
        path.unlink()
    train(store, tmp_path, *PROBE, "--keep", "best", "--resume")
    assert tables(folder) == tables(probed)
    assert set(epochs_in(folder)) == best_epochs(probed, 3) < {1, 2, 3}


def test_rows_of_other_settings_are_not_mixed(store: Path, probed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(probed, tmp_path / "pre"))
    with pytest.raises(ValueError, match=r"was made with --epochs 6; use those, or move the table away"):
        train(store, tmp_path, "--probe", "phenotyping", "--resume")
    assert tables(folder) == tables(probed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe": "phenotypin"}, "unknown --probe phenotypin; did you mean phenotyping?"),
        ({"probe": "phenotyping,"}, "unknown --probe ; the known ones are"),
        ({"probe_epochs": 0}, "--probe_epochs 0 is out of range; use 1 or more"),
        ({"probe_epochs": 6}, "--probe_epochs 6 is for --probe; add that, or leave it out"),
        ({"keep": "0"}, "--keep 0 is out of range; use all, best or a number"),
        ({"keep": "every"}, "--keep every is out of range"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        SelectionConfig(**settings)


def probe_weights(process: Process, folder: Path) -> dict[str, float]:
    """Probe fresh encoders after a first epoch."""
    torch.manual_seed(0)
    config = EncoderConfig(ehr_dim=8, vision_backbone="test_resnet")
    run = Run(RunConfig(save_dir=folder, device="cpu"), "pre", folder, process)
    selection = SelectionConfig(probe=",".join(TASK_NAMES), probe_epochs=6)
    data = DataConfig(store=folder.parent / "store", image_size=32)
    encoders = build_encoders(config)
    with releasing_locks():
        return EpochProbes(selection, data, config, encoders, Store.open(data.store), run).score(1)


def test_two_processes_find_what_one_finds_and_the_first_writes(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    (tmp_path / "one").mkdir()
    alone = probe_weights(Process(), tmp_path / "one")
    zero, one = run_on_ranks(probe_weights, tmp_path / "two")
    assert zero == one == pytest.approx(alone, abs=1e-4)
    for name in TASK_NAMES:
        tables = [pd.read_csv(tmp_path / run / f"results_label_{name}.csv") for run in ("one", "two")]
        pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-4)
