"""Every pretraining saves encoders that load downstream completely; launchers have the published values."""

import os
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import training.pretraining
from align_trainer import AlignConfig
from datasets.batches import Batches, load_batches
from models.encoders import EncoderConfig, with_shape
from models.objectives import OBJECTIVES
from simclr_trainer import SimCLRConfig
from tests.random_store import write_random_store
from tests.stores import write_store
from training import classify
from training.classify_config import ClassifyConfig
from training.pretrain import PretrainConfig, config_for
from training.pretraining import VAL_CURE, check_compares, pretrain
from utils import checkpoint
from utils.config import parse, to_dict
from vicreg_trainer import VICRegConfig

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--image_size", "32", "--batch_size", "8", "--device", "cpu", "--ehr_dim", "8")
CONSTANT = ("--vision_backbone", "test_resnet", "--schedule", "constant", "--warmup_epochs", "0")
ADAMW = ("--optimizer", "adamw", "--lr", "1e-3")

FLAGS = {"tsimclr": ("--k", "3", "--lr", "0.1"), "vicreg": ("--lr", "0.1")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


def run_pretraining(
    config: type[PretrainConfig], store: Path, folder: Path, *flags: str, name: str = "run"
) -> Path:
    """Pretrain on the small store; return the folder of the run."""
    places = ("--store", str(store), "--save_dir", str(folder), "--name", name)
    pretrain(parse(config, [*places, *SMALL, *CONSTANT, *flags]))
    return folder / name


def test_a_pretraining_on_a_store_without_xrays_says_how_to_get_pairs(tmp_path: Path) -> None:
    bare = write_store(tmp_path / "bare", stays=10, images=0)
    with pytest.raises(
        ValueError, match=r"has no X-ray, .* extract with --mimic_cxr.* --for_stays"
    ) as caught:
        run_pretraining(SimCLRConfig, bare, tmp_path)
    assert "--fusion" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_tensor_of_a_pretraining_loads_downstream(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: str
) -> None:
    flags = FLAGS.get(objective, ADAMW)
    left = run_pretraining(config_for(objective), store, tmp_path, *flags, "--epochs", "1", name=objective)
    state = checkpoint.load(left / f"{objective}_epoch_01.ckpt")
    assert state["config"]["objective"] == objective
    log = pd.read_csv(left / "log.csv")
    assert np.isfinite(log[["train_loss", "val_loss", "val_accuracy"]]).all(axis=None)
    capsys.readouterr()
    flags = ("--store", str(store), "--save_dir", str(tmp_path), "--results_dir", str(tmp_path / "results"))
    probe = ("--load_state", str(left / "last.ckpt"), "--fusion_layer", "3", "--epochs", "1", "--name", "it")
    classify.classify(parse(ClassifyConfig, [*flags, *probe, *SMALL[:6]]))
    printed = capsys.readouterr().out
    for part, tensors in state["parts"].items():
        assert f"loaded {part}: {len(tensors)}/{len(tensors)} tensors" in printed
    used = checkpoint.load(tmp_path / "it" / "best.ckpt")["parts"]
    assert set(used) == {*state["parts"], "linear"}
    assert all(
        torch.equal(tensors[key], used[part][key])
        for part, tensors in state["parts"].items()
        for key in tensors
    )
    assert used["linear"]["weight"].shape[1] == 2 * (512 if objective == "align" else 128)
    rows = pd.read_csv(tmp_path / "results" / "in-hospital-mortality.csv")
    assert set(rows["objective"]) == {objective}


def test_align_goes_on_where_it_ended_with_its_temperature_and_its_noise(store: Path, tmp_path: Path) -> None:
    uninterrupted = run_pretraining(
        AlignConfig, store, tmp_path, *ADAMW, "--epochs", "2", name="uninterrupted"
    )
    run_pretraining(AlignConfig, store, tmp_path, *ADAMW, "--epochs", "1", name="parts")
    parts = run_pretraining(AlignConfig, store, tmp_path, *ADAMW, "--epochs", "2", "--resume", name="parts")
    one, two = (
        checkpoint.load(folder / "last.ckpt")["training"]["objective"] for folder in (uninterrupted, parts)
    )
    assert one["temperature.log_scale"] != -np.log(0.07)
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--objective clip", "add --optimizer adamw"),
        ("--objective siglip --optimizer adamw --denominator full", "siglip has no setting --denominator"),
        ("--objective simclr --k 3", "--objective simclr has no setting --k; leave it out"),
        ("--objective clip --optimizer adamw --k 3", "--objective clip has no setting --k; leave it out"),
        ("--data_pairs cxr_all", "use --data_pairs paired"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(parse(SimCLRConfig, flags.split()))


@pytest.mark.parametrize("config", [VICRegConfig, AlignConfig])
def test_a_trainer_needs_pairs_to_tell_apart(store: Path, tmp_path: Path, config: type) -> None:
    for flags, message in ((("--data_pairs", "ehr"), "holds no pairs"), (("--batch_size", "1"), "2 or more")):
        with pytest.raises(ValueError, match=message):
            run_pretraining(config, store, tmp_path, *flags)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pairs", [[1], [0, 0], [1, 0, 0, 0, 1, 0, 0, 0]])
def test_pairs_without_another_in_their_batch_choose_no_epoch(pairs: list[int]) -> None:
    rule = r"the validation split has \d pairs .* no batch has two: .*--monitor train_loss"
    with pytest.raises(ValueError, match=rule):
        check_compares(np.array(pairs) - 1, 4, "validation", VAL_CURE)
    check_compares(np.array([*pairs, 1, 1]) - 1, 4, "validation", VAL_CURE)


def test_a_single_validation_pair_is_refused_unless_the_training_chooses(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_one_pair(*arguments: object) -> Batches:
        batches = load_batches(*arguments)
        if not batches.train:
            batches.samples = batches.samples.take(slice(1))
        return batches

    monkeypatch.setattr(training.pretraining, "load_batches", with_one_pair)
    monkeypatch.setattr(training.pretraining, "fit", lambda *_, **__: None)
    with pytest.raises(ValueError, match="the validation split has 1 pairs"):
        run_pretraining(SimCLRConfig, store, tmp_path)
    run_pretraining(SimCLRConfig, store, tmp_path, "--monitor", "train_loss")


def test_aligns_launcher_asks_for_the_published_settings_and_the_line_wins() -> None:
    script = ROOT / "align_trainer.sh"
    clean = {name: value for name, value in os.environ.items() if name != "STORE"}
    shown = subprocess.check_output(
        ["bash", str(script), "--swap", "0"], env={**clean, "LAUNCH": "echo"}, cwd="/", text=True
    )
    program, *flags = shown.split()
    config, default = parse(AlignConfig, flags), AlignConfig()
    assert program == "align_trainer.py" and os.access(script, os.X_OK) and config.swap == 0
    assert with_shape(config.encoders) == with_shape(default.encoders, 256)
    assert config.optim == default.optim
    same = ("task", "temperature", "denominator", "width")
    assert all(getattr(config, name) == getattr(default, name) for name in same)


def test_the_defaults_are_the_published_settings() -> None:
    align, vicreg = AlignConfig(), VICRegConfig()
    assert (align.optim.optimizer, align.optim.lr, align.optim.weight_decay) == ("adamw", 6.026e-5, 1e-4)
    assert (align.published_ehr_dim, align.temperature, align.width) == (256, 0.07, 0)
    assert (vicreg.optim.optimizer, vicreg.optim.lr, vicreg.optim.warmup_epochs) == ("lars", 0.5989, 10)
    assert (vicreg.published_ehr_dim, vicreg.width) == (128, 1)
    for config in (align, vicreg, SimCLRConfig()):
        assert (config.optim.epochs, config.optim.schedule, config.data.batch_size) == (300, "cosine", 256)


@pytest.mark.parametrize("objective", ["simclr", "tsimclr", "clip", "siglip"])
def test_simclrs_trainer_trains_its_relatives_as_their_own_programs_do(
    store: Path, tmp_path: Path, objective: str
) -> None:
    flags = ("--temperature", "0.2", *ADAMW, "--epochs", "1")
    choice = ("--objective", objective)
    run_pretraining(SimCLRConfig, store, tmp_path, *choice, *flags, name="trainer")
    run_pretraining(config_for(objective), store, tmp_path, *flags, name="program")
    one, two = (checkpoint.load(tmp_path / run / "last.ckpt")["parts"] for run in ("trainer", "program"))
    assert all(torch.equal(one[part][key], two[part][key]) for part in one for key in one[part])


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ("--help", 0, "{simclr,tsimclr,clip,siglip,vicreg,align}"),
        ("simclrr", 2, "Expected one of {simclr, tsimclr, clip, siglip, vicreg, align}"),
        ("vicreg --help", 0, "--invariance"),
        ("vicreg --varience 3", 2, "did you mean --variance?"),
        ("align --batch_size 1", 1, "--batch_size 1"),
        ("align --task phenotypin", 2, "unknown --task phenotypin; did you mean phenotyping?"),
    ],
)
def test_every_objective_is_a_subcommand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, status: int, text: str
) -> None:
    monkeypatch.setattr("sys.argv", ["pretrain", *words.split()])
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "training/pretrain.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert stopped.value.code == status and text in printed.out + printed.err


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_config_of_a_run_repeats_it(tmp_path: Path, objective: str) -> None:
    config = config_for(objective)(task="readmission", encoders=EncoderConfig(ehr_layers=2))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    assert parse(config_for(objective), ["--config", str(tmp_path / "config.yaml")]) == config
