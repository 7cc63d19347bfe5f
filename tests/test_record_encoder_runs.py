"""Every record encoder through the programs: trained, resumed, evaluated, pretrained and probed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import random_store
from evaluation.results import read_results, read_settings
from models.encoders import EHR_ENCODERS, EncoderConfig, with_shape
from tests.random_store import STAYS, write_random_store
from training import classify
from training.classify_config import ClassifyConfig
from training.pretrain import config_for
from training.pretraining import pretrain
from utils import checkpoint
from utils.config import parse

FAST = ("--image_size", "32", "--batch_size", "8", "--device", "cpu", "--bootstrap", "0")
SMALL = ("--ehr_dim", "16", "--vision_backbone", "test_resnet")
HOURS = {"train": [30, 26, 50, 72], "val": [60, 25], "test": [25, 49, 60]}
PROBE = ("--probe", "readmission", "--probe_epochs", "1")
SUPERVISED = ("--protocol", "supervised", "--fusion", "ehr", "--data_pairs", "ehr_all")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hours = {split: np.array(lengths) for split, lengths in HOURS.items()}
    return random_store.write_random_store(tmp_path_factory.mktemp("data") / "hourly", hours, hourly=True)


def run(store: Path, folder: Path, *flags: str | Path) -> Path:
    """Run run_gpu.py in this process; return the folder of the run."""
    paths = ("--store", store, "--save_dir", folder, "--results_dir", folder / "results")
    config = parse(ClassifyConfig, [*map(str, (*paths, *FAST, *flags))])
    classify.classify(config)
    return folder / config.run.name


def weights(path: Path) -> dict[str, torch.Tensor]:
    parts = checkpoint.load(path)["parts"]
    return {f"{part}.{name}": weight for part, state in parts.items() for name, weight in state.items()}


@pytest.mark.parametrize("name", EHR_ENCODERS)
def test_a_run_resumes_and_its_classifier_evaluates_again(store: Path, tmp_path: Path, name: str) -> None:
    flags = (*SUPERVISED, *SMALL, "--ehr_encoder", name, "--task", "readmission", "--schedule", "constant")
    whole = run(store, tmp_path, *flags, "--name", "whole", "--epochs", "2")
    run(store, tmp_path, *flags, "--name", "parts", "--epochs", "1")
    parts = run(store, tmp_path, *flags, "--name", "parts", "--epochs", "2", "--resume")
    expected, found = weights(whole / "last.ckpt"), weights(parts / "last.ckpt")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], weight) for key, weight in expected.items())
    built = checkpoint.load(whole / "best.ckpt")["config"]["encoders"]
    shape = with_shape(EncoderConfig(name, ehr_dim=16))
    assert (built["ehr_encoder"], built["ehr_dim"], built["ehr_layers"], built["ehr_dropout"]) == (
        name, 16, shape.ehr_layers, shape.ehr_dropout,
    )  # fmt: skip
    evaluation = ("--protocol", "supervised", "--fusion", "ehr", "--data_pairs", "ehr_all", "--mode", "eval")
    again = run(
        store, tmp_path, *evaluation, "--task", "readmission", "--load_state", whole / "best.ckpt",
        "--name", "again",
    )  # fmt: skip
    probability = [pd.read_csv(path / "predictions_test.csv")["probability"] for path in (whole, again)]
    assert len(probability[0]) == STAYS["test"] and np.allclose(*probability, atol=1e-6)
    rows = read_results(tmp_path / "results" / "readmission.csv")
    (hashed,) = set(rows.loc[rows["mode"] == "eval", "settings"])
    of_training = checkpoint.read_origin(whole / "best.ckpt").settings
    assert read_settings(tmp_path / "results", hashed)["classifier"] == of_training


@pytest.mark.parametrize("name", [name for name in EHR_ENCODERS if name not in ("lstm", "gru_d", "tcn")])
def test_a_pretrained_encoder_is_probed_and_fine_tuned(store: Path, tmp_path: Path, name: str) -> None:
    flags = [
        "--store",
        store,
        "--save_dir",
        tmp_path,
        *FAST[:6],
        *SMALL,
        "--ehr_encoder",
        name,
        "--epochs",
        1,
    ]
    pretrain(parse(config_for("simclr"), [*map(str, flags), "--warmup_epochs", "0", *PROBE]))
    (folder,) = tmp_path.glob(f"simclr-{name}-phenotyping-seed0")
    assert (folder / "results_label_readmission.csv").is_file()
    task = ("--task", "readmission", "--load_state", folder / "last.ckpt", "--epochs", "1")
    for protocol in ("lineareval", "finetune"):
        tuned = run(store, tmp_path, *task, "--protocol", protocol, "--name", protocol)
        assert checkpoint.load(tuned / "best.ckpt")["config"]["encoders"]["ehr_encoder"] == name
    rows = read_results(tmp_path / "results" / "readmission.csv")
    assert set(rows["ehr_encoder"]) == {name}  # which no flag of these runs names


@pytest.mark.parametrize("name", EHR_ENCODERS)
def test_an_hourly_task_is_trained_by_stays_and_by_samples(hourly: Path, tmp_path: Path, name: str) -> None:
    flags = (*SUPERVISED, *SMALL, "--ehr_encoder", name, "--task", "decompensation", "--every_hours", "24")
    for by in ("stay", "sample"):
        folder = run(hourly, tmp_path, *flags, "--batch_by", by, "--epochs", "1", "--name", by)
        assert np.isfinite(pd.read_csv(folder / "predictions_test.csv")["probability"]).all()


def test_flags_that_fit_no_record_encoder_are_refused(store: Path, tmp_path: Path) -> None:
    task = ("--task", "readmission", "--protocol", "supervised", "--data_pairs", "partial")
    with pytest.raises(ValueError, match="--fusion umse has no record encoder; leave out --ehr_encoder"):
        run(store, tmp_path, *task, "--fusion", "umse", "--ehr_encoder", "tcn")
    with pytest.raises(ValueError, match="the checkpoint of an encoder stores its architecture"):
        run(
            store, tmp_path, "--task", "readmission", "--load_state", "x.ckpt", "--protocol", "finetune",
            "--ehr_encoder", "tcn",
        )  # fmt: skip
