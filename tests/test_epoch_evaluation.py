"""Every epoch of a pretraining gets its row, even after an interruption, and the best epoch is reported."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from datasets.batches import Batches
from datasets.data_config import DataConfig
from datasets.features import UniqueInputs
from datasets.samples import Samples
from datasets.schema import SPLITS
from models.classifier import ClassifierConfig, start_classifier
from models.encoders import EncoderConfig
from simclr_trainer import SimCLRConfig
from tasks import TASKS
from tests.random_store import write_random_store
from tests.stores import refresh_manifests, write_store
from training import select_epoch
from training.classify_config import ClassifyConfig, check_config
from training.epoch_table import epoch_columns
from training.predict import predict
from training.pretraining import pretrain
from training.select_epoch_config import EpochSelectionConfig
from utils import checkpoint
from utils.cli import exit_on_stop_signals
from utils.config import parse

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--image_size", "32", "--batch_size", "8", "--device", "cpu")
PROBE = ("--epochs", "6", *SMALL)
TWO = ("phenotyping", "in-hospital-mortality")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a SimCLR run of three epochs."""
    folder = tmp_path_factory.mktemp("pretraining")
    flags = ("--store", str(store), "--save_dir", str(folder), "--name", "pre", "--epochs", "3")
    shape = ("--warmup_epochs", "0", "--lr", "0.1", "--ehr_dim", "8", "--vision_backbone", "test_resnet")
    pretrain(parse(SimCLRConfig, [*flags, *shape, *SMALL]))
    return folder / "pre"


@pytest.fixture
def pretrained(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder to write into."""
    return Path(shutil.copytree(trained, tmp_path / "pre"))


def settings(store: Path, run_dir: Path, *flags: str) -> EpochSelectionConfig:
    return parse(EpochSelectionConfig, ["--store", str(store), "--run_dir", str(run_dir), *PROBE, *flags])


def evaluate(store: Path, run_dir: Path, *flags: str) -> None:
    """Run epoch_evaluation.py in this process."""
    select_epoch.select_epoch(settings(store, run_dir, *flags))


def table(run_dir: Path, task: str, end: str = "") -> pd.DataFrame:
    return pd.read_csv(run_dir / f"results_label_{task}{end}.csv")


def test_every_epoch_of_every_task_gets_its_row_and_curve(store: Path, pretrained: Path) -> None:
    tasks = (*TWO, "length-of-stay")
    evaluate(store, pretrained, "--task", ",".join(tasks))
    for name in tasks:
        rows, task = table(pretrained, name), TASKS[name]
        assert tuple(rows) == epoch_columns(task) and rows["epoch"].tolist() == [1, 2, 3]
        means = [f"{split}_{task.monitor}" for split in SPLITS]
        assert np.isfinite(rows[means]).all(axis=None)
        for split in SPLITS:
            labels = rows[[f"{split}_{task.monitor}[{label}]" for label in task.labels]]
            assert np.allclose(labels.mean(axis=1), rows[f"{split}_{task.monitor}"])
        assert (pretrained / f"results_label_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "test_auprc" in table(pretrained, "phenotyping")
    assert "test_auprc" not in table(pretrained, "length-of-stay")
    assert not (pretrained / "results_label.csv").exists()


def test_stopped_and_resumed_leaves_what_an_unbroken_run_leaves(
    store: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = Path(shutil.copytree(pretrained, tmp_path / "uninterrupted"))
    evaluate(store, uninterrupted, "--task", ",".join(TWO))
    probes, append_row = [], select_epoch.append_row

    def stop_after_three(job: object, task: object, row: dict[str, float]) -> None:
        append_row(job, task, row)
        probes.append((row["epoch"], task.name))
        if len(probes) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(select_epoch, "append_row", stop_after_three)
    with pytest.raises(SystemExit) as left, exit_on_stop_signals():
        evaluate(store, pretrained, "--task", ",".join(TWO))
    assert left.value.code == 0 and len(probes) == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with open(pretrained / "results_label_in-hospital-mortality.csv", "a") as file:
        file.write("1,0.9,0.9")  # what a power cut would leave of a row
    evaluate(store, pretrained, "--task", ",".join(TWO))
    assert sorted(probes) == sorted((epoch, name) for epoch in (1, 2, 3) for name in TWO)
    for name in TWO:
        file = f"results_label_{name}.csv"
        assert (pretrained / file).read_bytes() == (uninterrupted / file).read_bytes()


def test_a_finished_table_costs_no_probe_and_a_new_checkpoint_one(
    store: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = pretrained / "pre_epoch_03.ckpt"
    away = later.rename(pretrained.parent / "later.ckpt")
    evaluate(store, pretrained, "--fusion", "ehr")
    probed, train_probe = [], select_epoch.train_probe
    monkeypatch.setattr(select_epoch, "train_probe", lambda *a: probed.append(1) or train_probe(*a))
    evaluate(store, pretrained, "--fusion", "ehr")
    assert not probed
    away.rename(later)
    evaluate(store, pretrained, "--fusion", "ehr")
    rows = table(pretrained, "phenotyping", "_ehr")
    assert len(probed) == 1 and rows["epoch"].tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(pd.read_csv(pretrained / "results_label.csv"), rows)


@pytest.mark.parametrize("layer", [0, 3])
def test_shared_features_are_those_of_each_sample(tmp_path: Path, trained: Path, layer: int) -> None:
    tasks = ("phenotyping", "readmission", "decompensation", "radiology")
    flags = ("--data_pairs", "partial", "--fusion_layer", str(layer), "--task", ",".join(tasks))
    config = settings(write_store(tmp_path / "store", 24, 20), trained, *flags)
    job = select_epoch.open_selection(config)
    samples = select_epoch.load_sample_sets(job, [TASKS[name] for name in tasks])
    inputs = {
        name: UniqueInputs(job.store, samples, name, config.data, job.process) for name in ("ehr", "cxr")
    }
    count = sum(map(len, samples.values()))
    stays = {first_hour for part in samples.values() for first_hour in part.offset}
    assert len(stays) < inputs["ehr"].count < count
    assert any((part.partial_bin_row >= 0).any() for part in samples.values())
    path = trained / "pre_epoch_02.ckpt"
    shared = select_epoch.compute_features(job, path, inputs)
    for name, part in samples.items():
        features = shared.features_of(name)
        assert torch.allclose(features, separate_features(job.store, path, layer, part), atol=1e-5)
        assert not torch.equal(features[0], features[-1])
    assert any((part.cxr_row < 0).any() for part in samples.values())


def separate_features(store: object, path: Path, layer: int, part: Samples) -> torch.Tensor:
    """Return the features of a split of one task, as linear evaluation computes them."""
    config = ClassifierConfig("concatenation", "binary", 1, EncoderConfig(), layer)
    classifier, _ = start_classifier(config, {"ehr": str(path), "cxr": str(path)})
    data = DataConfig(data_pairs="partial", image_size=32, batch_size=32)
    batches = Batches(store, part, data, seed=0, device=torch.device("cpu"), train=False)
    return torch.from_numpy(predict(classifier.fusion.eval().features, batches))


def test_the_best_epoch_is_named_with_a_command_that_uses_it(
    store: Path, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_constant(pretrained / "pre_epoch_01.ckpt")
    make_constant(pretrained / "pre_epoch_03.ckpt")
    evaluate(store, pretrained, "--task", "in-hospital-mortality", "--fusion", "ehr")
    rows = table(pretrained, "in-hospital-mortality", "_ehr")
    assert rows["val_auroc"][0] == rows["val_auroc"][2] == 0.5
    best = int(rows["val_auroc"].argmax()) + 1
    printed = capsys.readouterr().out
    assert f"in-hospital-mortality: epoch {best} is the best by validation" in printed
    assert "synthetic data" in printed and "ETA" in printed
    command = next(line.strip() for line in printed.splitlines() if line.startswith("  bash "))
    shown = subprocess.check_output(
        command.split(), cwd=ROOT, env=os.environ | {"LAUNCH": "printf %s\\n"}, text=True
    )
    config = parse(ClassifyConfig, shown.splitlines()[1:])
    check_config(config)
    assert config.load_state == str(pretrained / f"pre_epoch_{best:02d}.ckpt")
    assert (config.protocol, config.task, config.fusion) == ("lineareval", "in-hospital-mortality", "ehr")
    assert config.data.store == store and config.data.image_size == 32


def make_constant(path: Path) -> None:
    """Make the EHR encoder of a checkpoint return the same features for every stay."""
    state = checkpoint.load(path)
    for weights in state["parts"]["ehr_encoder"].values():
        weights.zero_()
    checkpoint.save(path, {name: value for name, value in state.items() if name != "format"})


def test_rows_of_other_settings_are_not_mixed(store: Path, pretrained: Path) -> None:
    flags = ("--fusion", "ehr", "--task", "in-hospital-mortality")
    evaluate(store, pretrained, *flags)
    recorded = yaml.safe_load((pretrained / "results_label_in-hospital-mortality_ehr.yaml").read_text())
    assert recorded["data"] == "synthetic data" and recorded["settings"]["probe"]["epochs"] == 6
    with pytest.raises(ValueError, match=r"was made with --epochs 6; use those, or move the table away"):
        evaluate(store, pretrained, *flags, "--epochs", "7")
    other = Path(shutil.copytree(store, pretrained.parent / "copy"))
    evaluate(other, pretrained, *flags)
    np.save(other / "cxr.npy", np.load(other / "cxr.npy") ^ 1)
    refresh_manifests(other)
    with pytest.raises(ValueError, match=r"was made with another store; use those, or move the table"):
        evaluate(other, pretrained, *flags)
    (pretrained / "environment.yaml").write_text("started: 2030-01-01T00:00:00+00:00\n")
    with pytest.raises(ValueError, match=r"was made with another pretraining; use those, or move"):
        evaluate(store, pretrained, *flags)
    (pretrained / "results_label_in-hospital-mortality_ehr.yaml").unlink()
    with pytest.raises(ValueError, match=r"has no results_label_in-hospital-mortality_ehr\.yaml"):
        evaluate(store, pretrained, *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--task phenotypin", "unknown --task phenotypin; did you mean phenotyping"),
        ("--data_pairs ehr", "has no X-rays, which --fusion concatenation needs; use --data_pairs paired"),
        ("--run_dir nowhere", "--run_dir nowhere holds no <run>_epoch_<NN>.ckpt; give the folder"),
    ],
)
def test_settings_that_cannot_work_are_refused(store: Path, trained: Path, flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(store, trained, *flags.split())


def test_a_pretraining_that_knows_test_patients_is_refused(store: Path, pretrained: Path) -> None:
    other = write_random_store(pretrained.parent / "other", first_subject=92)
    message = r"pre_epoch_01\.ckpt was trained or selected on 8 subjects in the test split"
    with pytest.raises(ValueError, match=message):
        evaluate(other, pretrained, "--task", "in-hospital-mortality")
    assert not (pretrained / "results_label_in-hospital-mortality.csv").exists()


def test_two_checkpoints_of_one_epoch_are_refused(tmp_path: Path) -> None:
    for name in ("a_epoch_01.ckpt", "b_epoch_01.ckpt", "a_epoch_00.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="are of the same epoch"):
        select_epoch.find_checkpoints(tmp_path)
    (tmp_path / "b_epoch_01.ckpt").rename(tmp_path / "a_epoch_100.ckpt")
    assert list(select_epoch.find_checkpoints(tmp_path)) == [0, 1, 100]


def test_two_processes_find_what_one_finds(
    store: Path, pretrained: Path, tmp_path: Path, quick_python: Path
) -> None:
    one = Path(shutil.copytree(pretrained, tmp_path / "one"))
    evaluate(store, one, "--task", "in-hospital-mortality")
    launch = (quick_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    flags = ("--store", str(store), "--run_dir", str(pretrained), *PROBE, "--task", "in-hospital-mortality")
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*launch, "--no-python", quick_python, "epoch_evaluation.py", *flags],
        cwd=ROOT,
        env=alone,
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert np.allclose(
        table(one, "in-hospital-mortality"), table(pretrained, "in-hospital-mortality"), atol=1e-4
    )


def test_the_launcher_has_the_published_values_and_the_line_wins() -> None:
    script = ROOT / "eval_epoch.sh"
    clean = {name: value for name, value in os.environ.items() if name not in ("STORE", "RUN")}
    shown = subprocess.check_output(
        [str(script), "--task", "readmission"],
        cwd="/",
        env=clean | {"LAUNCH": "printf %s\\n", "RUN": "/my runs/a"},
        text=True,
    )
    program, *flags = shown.splitlines()
    config = parse(EpochSelectionConfig, flags)
    assert program == "epoch_evaluation.py" and config.task == "readmission"
    assert config.run_dir == Path("/my runs/a") and config.data.store == Path("data/mimic")
    assert (config.probe.epochs, config.probe.lr, config.data.batch_size) == (100, 0.01, 512)
    assert config.probe == EpochSelectionConfig().probe and config.fusion == "concatenation"
