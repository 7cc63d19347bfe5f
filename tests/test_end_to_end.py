"""The main job on synthetic patients: what is planted in both modalities is found by pretraining on their
pairs."""

import contextlib
import io

import pandas as pd
import pytest

import run_gpu
import simclr_trainer
from datasets import extract, synthetic
from run_gpu import RunGPUConfig
from simclr_trainer import SimCLRConfig
from utils.config import parse

PATIENTS = "--patients 1500 --image_size 64 --paired 0.9 --workers 0 --seed 1"
PRETRAIN = (
    "--task in-hospital-mortality --vision_backbone resnet18 --transforms_cxr supervised --batch_size 128 "
    "--optimizer adamw --lr 2e-3 --epochs 10 --warmup_epochs 1 --name simclr"
)
PROBE = "--protocol lineareval --task phenotyping --batch_size 512 --epochs 100 --lr 1e-3"
RANDOM = "--load_state random --vision_backbone resnet18 --name random"
MARGIN = 0.04  # 0.07, 0.08 and 0.12 with three seeds when this was written


@pytest.fixture(scope="module")
def auroc(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Test AUROC of one linear layer on frozen encoders: random ones, and SimCLR's together and alone."""
    folder = tmp_path_factory.mktemp("main_job")
    raw, store = folder / "raw", folder / "store"
    synthetic.main(parse(synthetic.SyntheticConfig, f"{PATIENTS} --out {raw}".split()))
    tables = f"--mimic_iv {raw}/mimic-iv --mimic_cxr {raw}/mimic-cxr-jpg --out {store}"
    extract.main(parse(extract.ExtractConfig, tables.split()))
    shared = f"--store {store} --save_dir {folder}/runs --image_size 32 --device cpu"
    simclr_trainer.main(parse(SimCLRConfig, f"{shared} {PRETRAIN}".split()))
    probe = f"{shared} {PROBE} --results_dir {folder}/results"
    pretrained = f"--load_state {folder}/runs/simclr/last.ckpt --fusion"
    with contextlib.redirect_stdout(io.StringIO()) as told:
        for flags in (RANDOM, *(f"{pretrained} {fusion}" for fusion in ("ehr", "cxr", "concatenation"))):
            run_gpu.main(parse(RunGPUConfig, f"{probe} {flags}".split()))
    assert "synthetic" in told.getvalue()
    rows = pd.read_csv(folder / "results/phenotyping.csv").query("split == 'test' and metric == 'auroc'")
    rows = rows[rows["label"] == "macro"]
    names = rows["fusion"].where(rows["objective"] == "simclr", "random")
    return dict(zip(names, rows["value"], strict=True))


def test_pretraining_finds_what_random_encoders_miss(auroc: dict[str, float]) -> None:
    assert auroc["concatenation"] > auroc["random"] + MARGIN


def test_pretrained_features_predict_well_above_chance(auroc: dict[str, float]) -> None:
    assert auroc["concatenation"] > 0.7


def test_both_modalities_together_beat_each_alone(auroc: dict[str, float]) -> None:
    assert auroc["concatenation"] > max(auroc["ehr"], auroc["cxr"])
