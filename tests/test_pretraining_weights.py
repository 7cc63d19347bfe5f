"""Pretrainings whose image encoder starts from --cxr_weights: loaded strictly, recorded, and named later."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision import models as torchvision_models

from evaluation.results import read_results
from models.encoders import vision
from tests.random_store import write_random_store
from training.classify import classify
from training.classify_config import ClassifyConfig
from training.pretrain import config_for
from training.pretraining import pretrain
from utils import checkpoint
from utils.config import parse

FAST = ("--batch_size", "8", "--device", "cpu")
FLAGS = {
    "simclr": ("--optimizer", "adamw"),
    "vicreg": ("--optimizer", "adamw"),
    "align": ("--optimizer", "adamw"),
}
START = ("--schedule", "constant", "--warmup_epochs", "0", "--ehr_dim", "8", "--epochs", "1")
SEEN = "eva-x-tiny (may have seen MIMIC-CXR)"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision_models.resnet18(weights=None).state_dict(), path)
    return path


def run(objective: str, store: Path, folder: Path, *flags: object) -> None:
    """Pretrain with an objective on the small store."""
    words = ("--store", store, "--save_dir", folder, *FAST, *START, *FLAGS[objective], *flags)
    pretrain(parse(config_for(objective), [*map(str, words)]))


@pytest.mark.parametrize("objective", FLAGS)
def test_a_pretraining_starts_from_the_file_and_records_it(
    store: Path, resnet: Path, tmp_path: Path, objective: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--cxr_weights", resnet, "--vision_backbone", "resnet18", "--image_size", "32")
    run(objective, store, tmp_path, *flags, "--lr", "1e-30", "--weight_decay", "0")  # which leaves weights
    assert f"tensors of {resnet}, 513,000 numbers of other parts left out\n" in capsys.readouterr().out
    (folder,) = tmp_path.glob("*")
    assert folder.name == f"{objective}-external-phenotyping-seed0"
    state = checkpoint.load(folder / "last.ckpt")
    loaded, given = state["parts"]["cxr_encoder"]["stages.0.0.weight"], torch.load(resnet)["conv1.weight"]
    assert torch.allclose(loaded, given)
    assert state["config"]["cxr_weights"] == "external"
    assert state["config"]["encoders"]["pretrained"], "images are normalised as for weights of torchvision"
    record = (folder / "environment.yaml").read_text()
    assert checkpoint.read_origin(resnet).sha256 in record


def test_a_family_that_may_have_seen_the_images_is_named_in_the_rows_of_both_encoders(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "eva_x.pt"
    torch.save(vision._eva_x(192, 3).state_dict(), path)
    family = ("--cxr_weights", path, "--vision_backbone", "eva-x-tiny", "--image_size", "224")
    run("simclr", store, tmp_path, *family, "--name", "pretrained")
    assert "its scores may be too good; tables say so" in capsys.readouterr().out
    state = tmp_path / "pretrained" / "last.ckpt"
    for fusion, other in (("cxr", "none"), ("ehr", "lstm")):
        words = (
            "--store", store, "--save_dir", tmp_path, "--results_dir", tmp_path / "results", *FAST,
            "--task", "phenotyping", "--fusion", fusion, "--data_pairs", fusion, "--load_state", state,
            "--image_size", "224", "--epochs", "1", "--bootstrap", "0", "--name", fusion,
        )  # fmt: skip
        classify(parse(ClassifyConfig, [*map(str, words)]))
        assert f"began with {SEEN}: scores may be too good" in capsys.readouterr().out
        rows = read_results(tmp_path / "results" / "phenotyping.csv")
        rows = rows[rows["run"] == fusion]
        assert set(rows["cxr_weights"]) == {SEEN} and set(rows["ehr_encoder"]) == {other}
        assert set(rows["objective"]) == {"simclr"}


def test_a_resumed_pretraining_goes_on_from_its_own_weights_and_refuses_another_file(
    store: Path, resnet: Path, tmp_path: Path
) -> None:
    flags = ("--cxr_weights", resnet, "--vision_backbone", "resnet18", "--image_size", "32")
    run("simclr", store, tmp_path, *flags, "--name", "whole", "--epochs", "2")
    run("simclr", store, tmp_path, *flags, "--name", "parts")
    run("simclr", store, tmp_path, *flags, "--name", "parts", "--epochs", "2", "--resume")
    parts = [checkpoint.load(tmp_path / name / "last.ckpt")["parts"] for name in ("whole", "parts")]
    assert all(torch.equal(parts[0][p][key], parts[1][p][key]) for p in parts[0] for key in parts[0][p])
    assert np.isfinite(pd.read_csv(tmp_path / "parts" / "log.csv")["train_loss"]).all()
    other = tmp_path / "other.pth"
    torch.save(torchvision_models.resnet18(weights=None).state_dict(), other)
    with pytest.raises(ValueError, match="began with other settings"):
        run("simclr", store, tmp_path, *flags[2:], "--cxr_weights", other, "--name", "parts", "--resume")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--cxr_weights x.ckpt",
            r"x\.ckpt: takes files that end in .*a pretraining starts from no checkpoint",
        ),
        ("--cxr_weights x.pth", "there is no such file"),
        ("--vision_backbone rad-dino --cxr_weights x.pth", "use --image_size 518"),
        ("--vision_backbone resnet34 --cxr_weights RESNET18", "does not fit --vision_backbone resnet34"),
    ],
)
def test_wrong_files_are_one_clear_error(
    store: Path, resnet: Path, tmp_path: Path, flags: str, message: str
) -> None:
    words = flags.replace("RESNET18", str(resnet)).split()
    with pytest.raises((ValueError, OSError), match=message):
        run("simclr", store, tmp_path, *words, "--name", "it")
    assert list(tmp_path.iterdir()) == []  # no folder of a run that did not begin


def test_an_unknown_image_encoder_is_refused_before_a_folder_is_made(
    store: Path, resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="--vision_backbone resnet81: no ResNet"):
        run("simclr", store, tmp_path, "--vision_backbone", "resnet81", "--cxr_weights", resnet)
    assert "MIMIC-CXR" not in "".join(capsys.readouterr()) and list(tmp_path.iterdir()) == []


def test_without_a_file_the_weights_are_random_and_say_so(store: Path, tmp_path: Path) -> None:
    run("simclr", store, tmp_path, "--vision_backbone", "resnet18", "--image_size", "32", "--name", "it")
    assert checkpoint.load(tmp_path / "it" / "last.ckpt")["config"]["cxr_weights"] == "random"
    assert config_for("simclr")().cxr_weights == ""
