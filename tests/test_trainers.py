"""Pretraining, then every protocol and mode with its checkpoints, on a small store of random stays."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.schema import SPLITS
from evaluation import predictions
from evaluation.names import CALIBRATIONS
from evaluation.predictions import EMBEDDINGS
from evaluation.seeds import over_seeds, select_rows
from evaluation.tables import Table
from simclr_trainer import SimCLRConfig
from tasks import TASKS
from tests.random_store import STAYS, write_random_store
from tests.stores import refresh_manifests
from tests.training.toy import same
from training import classify
from training.classify_config import ClassifyConfig
from training.pretraining import pretrain
from utils import checkpoint
from utils.config import parse

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--image_size", "32", "--batch_size", "8", "--device", "cpu")
SHAPE = ("--ehr_dim", "8", "--vision_backbone", "test_resnet")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def pretrained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a SimCLR run of two epochs."""
    folder = tmp_path_factory.mktemp("pretraining")
    flags = ("--store", str(store), "--save_dir", str(folder), "--name", "pre", "--epochs", "2")
    pretrain(parse(SimCLRConfig, [*flags, "--warmup_epochs", "0", "--lr", "0.1", *SMALL, *SHAPE]))
    return folder / "pre"


@pytest.fixture
def settings(store: Path, tmp_path: Path) -> list[str]:
    """Flags of a short run into an empty folder."""
    paths = ("--store", str(store), "--save_dir", str(tmp_path), "--results_dir", str(tmp_path / "results"))
    return [*paths, "--epochs", "2", "--lr", "0.001", "--bootstrap", "20", *SMALL]


def run(settings: list[str], *flags: str | Path) -> ClassifyConfig:
    """Run run_gpu.py in this process; return its config."""
    config = parse(ClassifyConfig, [*map(str, (*settings, *flags))])
    classify.classify(config)
    return config


def probabilities(folder: Path, split: str = "test") -> np.ndarray:
    return pd.read_csv(folder / f"predictions_{split}.csv")["probability"].to_numpy()


def test_pretraining_keeps_every_epoch_and_how_to_build_it(pretrained: Path) -> None:
    names = {path.name for path in pretrained.glob("*.ckpt")}
    assert names == {"pre_epoch_01.ckpt", "pre_epoch_02.ckpt", "best.ckpt", "last.ckpt"}
    state = checkpoint.load(pretrained / "pre_epoch_02.ckpt")
    assert set(state["parts"]) == {"ehr_encoder", "cxr_encoder", "ehr_head", "cxr_head"}
    assert state["config"]["objective"] == "simclr" and state["config"]["encoders"]["ehr_dim"] == 8
    log = pd.read_csv(pretrained / "log.csv")
    assert np.isfinite(log[["train_loss", "val_loss", "val_accuracy"]]).all(axis=None)


def test_pretraining_tells_each_epoch_whether_the_embeddings_collapse(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--store", str(store), "--save_dir", str(tmp_path), "--name", "it", "--epochs", "1")
    pretrain(parse(SimCLRConfig, [*flags, "--warmup_epochs", "0", *SMALL, *SHAPE]))
    log = pd.read_csv(tmp_path / "it" / "log.csv")
    names = ("image_deviation", "ehr_deviation", "alignment", "uniformity")
    assert np.isfinite(log[[f"{split}_{name}" for split in ("train", "val") for name in names]]).all(
        axis=None
    )
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1/1"))
    for name in ("val_image_deviation", "val_ehr_deviation"):
        assert f"{name} {log[name].item():.4f}" in line and 0 < log[name].item() < 1.5


def test_pretraining_learns_both_encoders(pretrained: Path) -> None:
    first, last = (checkpoint.load(pretrained / f"pre_epoch_0{n}.ckpt")["parts"] for n in (1, 2))
    for part in first:
        assert any(not torch.equal(first[part][name], last[part][name]) for name in first[part])


@pytest.mark.parametrize(
    ("protocol", "fusion", "task"),
    [
        ("lineareval", "concatenation", "phenotyping"),
        ("lineareval", "cxr", "radiology"),
        ("finetune", "concatenation", "in-hospital-mortality"),
        ("finetune", "ehr", "length-of-stay"),
    ],
)
def test_a_protocol_trains_tests_and_evaluates_again(
    settings: list[str], pretrained: Path, tmp_path: Path, protocol: str, fusion: str, task: str
) -> None:
    flags = (*settings, "--protocol", protocol, "--fusion", fusion, "--task", task)
    run(flags, "--name", "it", "--load_state", pretrained / "best.ckpt")
    for split in ("val", "test"):
        table = pd.read_csv(tmp_path / "it" / f"predictions_{split}.csv")
        is_calibrated = split == "test" and TASKS[task].kind != "ordinal"
        columns = ["probability", *(CALIBRATIONS if is_calibrated else ())]
        assert set(table) == {*predictions.COLUMNS, predictions.HAS_XRAY, *columns}
        assert table[columns].stack().between(0, 1).all()
    run(flags, "--name", "again", "--mode", "eval", "--load_state", tmp_path / "it" / "best.ckpt")
    assert np.allclose(probabilities(tmp_path / "it"), probabilities(tmp_path / "again"), atol=1e-5)
    rows = pd.read_csv(tmp_path / "results" / f"{task}.csv")
    trained, again = (rows[(rows["run"] == name) & (rows["split"] == "test")] for name in ("it", "again"))
    assert set(rows["split"]) == {"val", "test"} and set(rows["objective"]) == {"simclr"}
    calibrated = trained["metric"].str.endswith(tuple(CALIBRATIONS))
    assert calibrated.any() == is_calibrated
    trained = trained[~calibrated]
    assert np.allclose(trained["value"], again["value"], atol=1e-4, equal_nan=True)
    assert (trained["epoch"].to_numpy() == again["epoch"].to_numpy()).all()
    for name, values in trained[["store", "data_pairs", "settings", "classifier_hash"]].items():
        assert values.nunique() == 1 and (name == "settings") != (values.iloc[0] == again[name].iloc[0])
        assert name != "settings" or (tmp_path / f"results/settings/{values.iloc[0]}.yaml").is_file()
    assert set(rows["data"]) == {"synthetic"} and set(trained["mode"]) | set(again["mode"]) == {
        "train",
        "eval",
    }
    lines = select_rows(Table(task, (tmp_path / "results",))).lines
    assert lines == ["not counted: again, which repeats the test of it"]
    monitor = TASKS[task].monitor
    best = pd.read_csv(tmp_path / "it" / "log.csv")[monitor].max()
    tested = rows[(rows["run"] == "it") & (rows["split"] == "val") & (rows["label"] == "macro")]
    assert tested.loc[tested["metric"] == monitor, "value"].item() == pytest.approx(best, abs=1e-6)


def test_runs_without_a_name_are_called_by_objective_and_seed(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    flags = (*settings, "--fusion", "ehr", "--task", "phenotyping", "--load_state", pretrained / "best.ckpt")
    for seed in ("0", "1"):
        run(flags, "--seed", seed, "--epochs", "1")
    names = [f"phenotyping-lineareval-ehr-simclr-seed{seed}" for seed in (0, 1)]
    run(flags, "--mode", "eval", "--load_state", tmp_path / names[1] / "best.ckpt")
    rows = pd.read_csv(tmp_path / "results/phenotyping.csv").drop_duplicates("run").set_index("run")
    assert list(rows.index) == [*names, f"{names[1]}-eval"] and rows["seed"].tolist() == [0, 1, 1]
    assert rows["settings"][names[0]] == rows["settings"][names[1]]
    (row,) = over_seeds(select_rows(Table("phenotyping", (tmp_path / "results",), ("auroc",))).rows).to_dict(
        "records"
    )
    assert row["runs"] == ", ".join(names) and row["checkpoints"] == 1


def test_supervised_starts_afresh(settings: list[str], tmp_path: Path) -> None:
    flags = ("--protocol", "supervised", "--fusion", "ehr", "--data_pairs", "ehr_all", "--name", "it")
    run(settings, *flags, *SHAPE)
    rows = pd.read_csv(tmp_path / "results" / "in-hospital-mortality.csv")
    assert set(rows["objective"]) == {"supervised"} and rows["checkpoint"].isna().all()
    assert rows.loc[rows["split"] == "test", "n"].max() == STAYS["test"]


def all_positive(store: Path, split: str) -> None:
    """Set every label of in-hospital mortality in a split to 1."""
    path = store / "in-hospital-mortality" / f"{split}_listfile.csv"
    pd.read_csv(path).assign(y_true=1).to_csv(path, index=False)
    refresh_manifests(store)


def test_a_train_split_of_one_class_is_refused_and_a_validation_split_chooses_by_its_loss(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_random_store(tmp_path / "store")
    all_positive(store, "val")
    flags = ("--store", store, "--protocol", "supervised", "--fusion", "ehr", *SHAPE, "--epochs", "4")
    run(settings, *flags, "--lr", "0.5", "--name", "it")
    printed = capsys.readouterr().out
    assert "every label of in-hospital-mortality has only one class in the validation split" in printed
    log = pd.read_csv(tmp_path / "it" / "log.csv")
    assert log["auroc"].isna().all()
    rows = pd.read_csv(tmp_path / "results" / "in-hospital-mortality.csv")
    assert set(rows["epoch"]) == {log["val_loss"].argmin() + 1}
    all_positive(store, "train")
    with pytest.raises(
        ValueError, match="every label of in-hospital-mortality has only one class in the 11 train"
    ):
        run(settings, *flags, "--name", "other")


def test_samples_without_an_image_are_classified_too(settings: list[str], tmp_path: Path) -> None:
    flags = ("--protocol", "supervised", "--data_pairs", "partial", "--name", "it", "--epochs", "1")
    run(settings, *flags, *SHAPE)
    assert len(probabilities(tmp_path / "it")) == STAYS["test"]


def test_a_checkpoint_that_knows_test_patients_is_refused(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    run(settings, "--fusion", "ehr", "--load_state", pretrained / "best.ckpt", "--name", "it")
    other = write_random_store(tmp_path / "other", first_subject=92)  # its test split is what val was before
    flags = (*settings, "--store", other, "--fusion", "ehr", "--name", "other")
    message = r"trained or selected on 8 subjects in the test split of .*other \(first: 114\)"
    for protocol in ("lineareval", "finetune"):
        with pytest.raises(ValueError, match=message):
            run(flags, "--protocol", protocol, "--load_state", pretrained / "best.ckpt")
    with pytest.raises(ValueError, match=message):
        run(flags, "--mode", "eval", "--load_state", tmp_path / "it" / "best.ckpt")


def test_a_run_does_not_go_on_with_other_data_or_encoders(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    other = write_random_store(tmp_path / "other", first_subject=92)
    flags = (*settings, "--fusion", "ehr", "--name", "it")
    run(flags, "--load_state", "random", *SHAPE)
    kept = (tmp_path / "it" / "best.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"content of --store was \w{64} and is \w{64} now; resume with"):
        run(flags, "--store", other, "--load_state", "random", *SHAPE, "--resume")
    with pytest.raises(ValueError, match=r"--resume would mix the two: run\.seed 0 -> 1; use the"):
        run(flags, "--load_state", "random", *SHAPE, "--seed", "1", "--resume")
    with pytest.raises(
        ValueError, match=r"--resume would mix the two: .*sources\.load_state_ehr None -> \w{64}"
    ):
        run(flags, "--load_state", pretrained / "best.ckpt", "--resume")
    assert (tmp_path / "it" / "best.ckpt").read_bytes() == kept


def test_lineareval_leaves_the_encoders_as_they_were(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    run(settings, "--name", "it", "--load_state", pretrained / "best.ckpt", "--fusion_layer", "3")
    before, after = (checkpoint.load(path / "best.ckpt")["parts"] for path in (pretrained, tmp_path / "it"))
    for part in ("ehr_encoder", "cxr_encoder", "ehr_head", "cxr_head"):
        assert all(torch.equal(before[part][name], after[part][name]) for name in before[part])
    assert after["linear"]["weight"].shape == (1, 128 + 128)
    with np.load(tmp_path / "it" / EMBEDDINGS) as kept:
        samples = len(pd.read_csv(tmp_path / "it" / "predictions_test.csv"))
        assert kept["embeddings"].shape == (samples, 128 + 128) and kept["names"].tolist() == ["y_true"]
        truth = pd.read_csv(tmp_path / "it" / "predictions_test.csv")["truth"]
        assert np.array_equal(kept["labels"][:, 0], truth)


def test_finetune_changes_the_encoders_and_its_last_epoch_can_be_tested_too(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    flags = (*settings, "--protocol", "finetune", "--fusion", "ehr")
    run(flags, "--name", "it", "--load_state", pretrained / "best.ckpt")
    before, after = (checkpoint.load(path / "best.ckpt")["parts"] for path in (pretrained, tmp_path / "it"))
    assert set(after) == {"ehr_encoder", "linear"}
    assert any(
        not torch.equal(before["ehr_encoder"][n], after["ehr_encoder"][n]) for n in after["ehr_encoder"]
    )
    for name in ("best", "last"):
        run(flags, "--mode", "eval", "--load_state", tmp_path / "it" / f"{name}.ckpt")
    rows = pd.read_csv(tmp_path / "results" / "in-hospital-mortality.csv")
    assert set(rows.loc[rows["mode"] == "eval", "run"]) == {"it-eval", "it-last-eval"}
    assert set(rows.loc[rows["run"] == "it-last-eval", "epoch"]) == {2}


def test_what_is_not_in_the_encoders_can_have_a_rate_of_its_own(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    flags = ("--protocol", "finetune", "--load_state", pretrained / "best.ckpt", "--weight_decay", "0")
    run(settings, *flags, "--name", "it", "--lr", "1e-9", "--head_lr", "0.01", "--epochs", "1")
    before, after = (checkpoint.load(path / "best.ckpt")["parts"] for path in (pretrained, tmp_path / "it"))
    weight = "lstm.weight_hh_l0"
    moved = (after["ehr_encoder"][weight] - before["ehr_encoder"][weight]).abs().max()
    assert 0 < moved < 1e-7
    head = after["linear"]["weight"]
    assert head.abs().max() > 1.01 / head.shape[1] ** 0.5  # the bound of what a linear layer starts from
    with pytest.raises(SystemExit):
        run(settings, *flags, "--name", "other", "--head_lr", "-1")


def test_encoders_of_a_classifier_can_be_taken_up(settings: list[str], tmp_path: Path) -> None:
    run(settings, "--protocol", "supervised", "--fusion", "ehr", "--name", "first", *SHAPE)
    state = tmp_path / "first" / "best.ckpt"
    run(settings, "--protocol", "lineareval", "--fusion", "ehr", "--name", "second", "--load_state", state)
    before, after = (checkpoint.load(tmp_path / name / "best.ckpt")["parts"] for name in ("first", "second"))
    assert all(torch.equal(before["ehr_encoder"][n], after["ehr_encoder"][n]) for n in after["ehr_encoder"])


def test_a_checkpoint_that_does_not_fit_is_named_with_the_cure(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    run(settings, "--protocol", "supervised", "--fusion", "ehr", "--name", "alone", *SHAPE)
    state = tmp_path / "alone" / "best.ckpt"
    message = r"best\.ckpt: .* no part 'cxr_encoder'; it has ehr_encoder, linear; give .* --load_state_cxr"
    with pytest.raises(ValueError, match=message):
        run(settings, "--protocol", "finetune", "--name", "it", "--load_state", state)
    incomplete = checkpoint.load(state)
    del incomplete["parts"]["ehr_encoder"]["lstm.weight_hh_l0"]
    checkpoint.save(state, incomplete)
    flags = ("--fusion", "ehr", "--name", "it", "--load_state", state)
    with pytest.raises(
        ValueError, match=r"best\.ckpt: part 'ehr_encoder' does not fit: missing lstm.*; give"
    ):
        run(settings, "--protocol", "finetune", *flags)
    with pytest.raises(
        ValueError, match=r"best\.ckpt: part 'ehr_encoder' does not fit: missing lstm.*; give"
    ):
        run(settings, "--protocol", "supervised", "--mode", "eval", *flags)


def test_random_encoders_are_a_baseline_that_says_so(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings, "--fusion", "ehr", "--load_state", "random", "--name", "it", *SHAPE)
    rows = pd.read_csv(tmp_path / "results" / "in-hospital-mortality.csv")
    assert set(rows["objective"]) == set(rows["checkpoint"]) == {"random"}
    printed = capsys.readouterr().out
    assert "synthetic data" in printed and str(tmp_path / "it" / "predictions_test.csv") in printed


def test_a_run_repeats_itself(settings: list[str], pretrained: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        flags = ("--protocol", "finetune", "--name", name, "--load_state", pretrained / "best.ckpt")
        run(settings, *flags, "--task", "phenotyping")
    assert np.array_equal(probabilities(tmp_path / "one"), probabilities(tmp_path / "two"))


@pytest.mark.parametrize("protocol", ["lineareval", "finetune"])
def test_a_longer_run_can_go_on_where_a_shorter_one_ended(
    settings: list[str], pretrained: Path, tmp_path: Path, protocol: str
) -> None:
    flags = (*settings, "--protocol", protocol, "--fusion", "ehr", "--load_state", pretrained / "best.ckpt")
    constant = ("--schedule", "constant", "--epochs")
    run(flags, "--name", "whole", *constant, "4")
    run(flags, "--name", "parts", *constant, "2")
    run(flags, "--name", "parts", *constant, "4", "--resume")
    assert np.array_equal(probabilities(tmp_path / "whole"), probabilities(tmp_path / "parts"))


def test_its_own_config_repeats_a_run_in_another_process(
    settings: list[str], tmp_path: Path, quick_python: Path
) -> None:
    flags = ("--protocol", "supervised", "--task", "phenotyping", "--name", "it", *SHAPE)
    config = run(settings, *flags)
    again = ["--config", str(tmp_path / "it" / "config.yaml"), "--name", "again"]
    assert parse(ClassifyConfig, again) == replace(config, run=replace(config.run, name="again"))
    subprocess.run([quick_python, "run_gpu.py", *again], cwd=ROOT, check=True, capture_output=True)
    for split in SPLITS[1:]:
        one, two = (tmp_path / name / f"predictions_{split}.csv" for name in ("it", "again"))
        assert one.read_bytes() == two.read_bytes()
    one, two = (checkpoint.load(tmp_path / name / "best.ckpt") for name in ("it", "again"))
    assert same(one, two)


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_pretraining_has_the_same_bits_wherever_the_data_lie(
    store: Path, pretrained: Path, tmp_path: Path, where: str
) -> None:
    flags = ("--store", str(store), "--save_dir", str(tmp_path), "--name", "pre", "--epochs", "2")
    flags += ("--warmup_epochs", "0", "--lr", "0.1", "--data_device", where)
    pretrain(parse(SimCLRConfig, [*flags, *SMALL, *SHAPE]))
    one, two = (checkpoint.load(folder / "last.ckpt") for folder in (pretrained, tmp_path / "pre"))
    assert same(one, two)
    times = ["seconds", "samples_per_second"]
    logs = [pd.read_csv(folder / "log.csv").drop(columns=times) for folder in (pretrained, tmp_path / "pre")]
    pd.testing.assert_frame_equal(*logs, check_exact=True)


def test_results_that_cannot_be_written_are_refused_before_the_training(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "fit", lambda *_, **__: pytest.fail("it trains"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to \S*file .*; give another folder"):
        run(settings, "--protocol", "supervised", *SHAPE, "--results_dir", tmp_path / "file")
    with pytest.raises(OSError, match=r"cannot write to \S*file/.*; give another folder"):
        run(settings, "--protocol", "supervised", *SHAPE, "--save_dir", tmp_path / "file")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--protocol lineareval", "needs --load_state"),
        ("--protocol finetune", "needs --load_state"),
        ("--mode eval", "needs --load_state"),
        ("--mode eval --load_state random", "needs --load_state"),
        ("--protocol supervised --load_state x.ckpt", "leave out --load_state"),
        ("--protocol finetune --load_state random", "is --protocol supervised"),
        ("--protocol supervised --fusion_layer 3", "use --fusion_layer 0"),
        ("--protocol lineareval --load_state random --batch_by stay", "trains no encoder.*out --batch_by"),
        ("--protocol finetune --load_state x.ckpt --ehr_dim 64", "leave out --ehr_dim"),
        ("--protocol supervised --data_pairs ehr", "has no X-rays, which --fusion concatenation needs"),
        ("--protocol supervised --fusion ehr --data_pairs cxr_all", "has no EHR data, which --fusion ehr"),
        ("--protocol lineareval --load_state nowhere.ckpt", "there is no such checkpoint"),
        (
            "--protocol lineareval --load_state no/a.ckpt",
            "folder no does not exist: run .*simclr.sh.*CHECKPOINT",
        ),
        ("--protocol lineareval --load_state tests", "tests is a folder, which holds no .ckpt file"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: list[str], flags: str, message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        run(settings, *flags.split())


def test_eval_wants_the_classifier_that_the_flags_describe(
    settings: list[str], pretrained: Path, tmp_path: Path
) -> None:
    run(settings, "--fusion", "ehr", "--load_state", "random", "--name", "it", *SHAPE)
    state = ("--mode", "eval", "--load_state", tmp_path / "it" / "best.ckpt")
    with pytest.raises(
        ValueError, match=r"--task readmission: .* was trained with --task in-hospital-mortality"
    ):
        run(settings, *state, "--fusion", "ehr", "--task", "readmission")
    with pytest.raises(ValueError, match=r"--fusion concatenation: .* was trained with --fusion ehr"):
        run(settings, *state)
    with pytest.raises(ValueError, match="holds no classifier, only encoders"):
        run(settings, "--mode", "eval", "--load_state", pretrained / "best.ckpt")


@pytest.mark.parametrize(
    ("flags", "message"),
    [("--data_pairs ehr_all", "use --data_pairs paired"), ("--batch_size 1", "use 2 or more")],
)
def test_pretraining_needs_pairs_to_tell_apart(store: Path, tmp_path: Path, flags: str, message: str) -> None:
    paths = ("--store", str(store), "--save_dir", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        pretrain(parse(SimCLRConfig, [*paths, *SMALL, *flags.split()]))


@pytest.mark.parametrize(
    ("flags", "close"),
    [
        ("--task phenotyping --load_state {pretrained} --epochs 3", 1e-5),
        # Sums over images are rounded differently with two processes, and Adam amplifies the difference.
        (
            "--task decompensation --protocol supervised --fusion late --data_pairs partial --batch_size 100 "
            "--epochs 1 --optimizer sgd --ehr_dim 8 --vision_backbone test_resnet",
            1e-4,
        ),
    ],
)
def test_two_processes_classify_as_one(
    settings: list[str], pretrained: Path, tmp_path: Path, quick_python: Path, flags: str, close: float
) -> None:
    words = flags.format(pretrained=pretrained / "best.ckpt").split()
    run(settings, *words, "--name", "one")
    launch = (quick_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    script = ("--no-python", quick_python, "run_gpu.py", *settings, *words, "--name", "two")
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *script], cwd=ROOT, env=alone, check=True, capture_output=True, timeout=300)
    for split in SPLITS[1:]:
        one, two = (probabilities(tmp_path / name, split) for name in ("one", "two"))
        assert np.allclose(one, two, atol=close)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("one", "two")]
    for loss in ("train_loss", "val_loss"):
        assert np.allclose(*(log[loss] for log in logs), atol=1e-5)
