"""Fine-tuning begins with the probe of its encoders, and lets their layers learn at their own rates."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from evaluation.results import read_results
from models.classifier import Classifier
from models.encoders import EncoderConfig, build_encoders
from models.fusion import build_fusion
from models.fusion.settings import FusionSettings
from tests.random_store import write_random_store
from training import classify
from training.classify import lr_scales
from training.classify_config import ClassifierOptim, ClassifyConfig
from training.probe import train_probe
from utils import checkpoint
from utils.config import parse

TASK = "phenotyping"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def start(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of records, whose encoder fine-tuning starts from."""
    folder = tmp_path_factory.mktemp("start")
    run(store, folder, "--protocol", "supervised", "--ehr_dim", "8", "--name", "start")
    return folder / "start" / "best.ckpt"


def run(store: Path, out: Path, *flags: str | Path) -> None:
    paths = ("--store", store, "--save_dir", out, "--results_dir", out / "results", "--task", TASK)
    small = "--fusion ehr --data_pairs ehr_all --batch_size 8 --device cpu --epochs 1 --bootstrap 0"
    classify.classify(parse(ClassifyConfig, [*map(str, (*paths, *small.split(), *flags))]))


def classifier(layers: int = 3) -> Classifier:
    encoders = build_encoders(EncoderConfig(ehr_dim=8, ehr_layers=layers, vision_backbone="resnet18"))
    return Classifier(build_fusion("concatenation", encoders, 1, "binary", FusionSettings()), "binary")


def test_the_head_begins_as_the_probe_and_hardly_moves_at_a_tiny_rate(
    store: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []

    def record(*arguments: object) -> dict[str, torch.Tensor]:
        probability = train_probe(*arguments)
        heads.append(arguments[-1].weight.detach().clone())
        return probability

    monkeypatch.setattr(classify, "train_probe", record)
    tuned = ("--protocol", "finetune", "--load_state", start, "--lr", "1e-9")
    run(store, tmp_path, *tuned, "--head_start", "probe", "--probe_epochs", "40", "--name", "tuned")
    run(store, tmp_path, *tuned, "--name", "fresh")
    own, fresh = (checkpoint.load(tmp_path / name / "best.ckpt")["parts"] for name in ("tuned", "fresh"))
    assert len(heads) == 1 and torch.allclose(own["linear"]["weight"], heads[0], atol=1e-6)
    assert not torch.allclose(fresh["linear"]["weight"], heads[0], atol=1e-2)
    encoder = checkpoint.load(start)["parts"]["ehr_encoder"]
    assert all(torch.allclose(own["ehr_encoder"][name], encoder[name], atol=1e-6) for name in encoder)


def test_a_resumed_fine_tuning_does_not_begin_again(
    store: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--protocol", "finetune", "--load_state", start, "--head_start", "probe", "--name", "it")
    run(store, tmp_path, *flags)
    monkeypatch.setattr(classify, "train_probe", lambda *_: pytest.fail("it probes again"))
    run(store, tmp_path, *flags, "--epochs", "2", "--resume")
    assert pd.read_csv(tmp_path / "it" / "log.csv")["epoch"].tolist() == [1, 2]
    assert checkpoint.load(tmp_path / "it" / "last.ckpt")["epoch"] == 2


def test_a_fine_tuning_that_spoils_its_probe_ends_with_the_probe(
    store: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--protocol", "finetune", "--load_state", start, "--head_start", "probe", "--name", "it")
    run(store, tmp_path, *flags, "--lr", "10", "--optimizer", "sgd", "--epochs", "2")
    folder = tmp_path / "it"
    best, last = (checkpoint.load(folder / f"{name}.ckpt") for name in ("best", "last"))
    encoder = checkpoint.load(start)["parts"]["ehr_encoder"]
    assert all(torch.equal(best["parts"]["ehr_encoder"][name], encoder[name]) for name in encoder)
    assert (best["epoch"], last["epoch"]) == (0, 2) and last["training"]["progress"]["best_epoch"] == -1
    rows = read_results(tmp_path / "results" / f"{TASK}.csv")
    rows = rows[(rows["label"] == "macro") & (rows["metric"] == "auroc")].set_index("split")
    assert (rows["epoch"] == 0).all()
    said = capsys.readouterr().out
    assert f"epoch 0/2  auroc {rows['value']['val']:.4f}" in said
    assert f"the head begins as a probe; auroc val {rows['value']['val']:.4f}" in said
    assert pd.read_csv(folder / "log.csv")["epoch"].tolist() == [1, 2]


def test_layers_learn_the_more_slowly_the_nearer_they_are_to_the_input() -> None:
    model = classifier()
    scales = lr_scales(model, ClassifierOptim(lr=1e-3, head_lr=1e-2, layer_lr_decay=0.5))
    fusion = model.fusion
    assert {scales[weight] for weight in fusion.linear.parameters()} == {10.0}
    stages = [{scales[weight] for weight in stage.parameters()} for stage in fusion.cxr_encoder.stages]
    assert stages == [{0.5**5}, {0.5**4}, {0.5**3}, {0.5**2}, {0.5}]
    rates = [{scales[weight] for weight in layer} for layer in fusion.ehr_encoder.weights_by_layer()]
    assert rates == [{0.5**3}, {0.5**2}, {0.5}] and set(scales) == set(model.parameters())
    assert set(lr_scales(model, ClassifierOptim()).values()) == {1.0}
    encoders = (fusion.ehr_encoder, fusion.cxr_encoder)
    whole = [weight for encoder in encoders for weight in encoder.parameters()]
    layers = [weight for encoder in encoders for layer in encoder.weights_by_layer() for weight in layer]
    assert len(layers) == len(whole) and set(layers) == set(whole)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--protocol lineareval --load_state x --layer_lr_decay 0.5", "trains none; leave it out"),
        ("--protocol finetune --load_state x --probe_lr 0.1", "are for --head_start probe; add that"),
        ("--protocol finetune --load_state x --head_start probe --probe_lr 0", "--probe_lr 0.0 is out of"),
        ("--protocol supervised --head_start probe", "is for --mode train --protocol finetune; leave it out"),
        ("--protocol finetune --load_state x --fusion medfuse --data_pairs partial --head_start probe",
         "the head of --fusion medfuse is no linear layer on features"),
    ],
)  # fmt: skip
def test_settings_without_an_effect_are_refused(
    store: Path, tmp_path: Path, flags: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(store, tmp_path, *flags.split())


@pytest.mark.parametrize("decay", ["0", "1.1"])
def test_a_decay_that_is_none_is_refused(store: Path, tmp_path: Path, decay: str) -> None:
    with pytest.raises(SystemExit):
        run(store, tmp_path, "--layer_lr_decay", decay)
