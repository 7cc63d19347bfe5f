"""The main job on synthetic patients: pretraining on pairs finds what is planted in both modalities."""

import contextlib
import io
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import planted
from datasets.extract_config import ExtractConfig
from datasets.synthetic import release as synthetic
from datasets.synthetic.config import SyntheticConfig
from simclr_trainer import SimCLRConfig
from tests.stores import extract_with_samples
from training import classify
from training.classify_config import ClassifyConfig
from training.pretraining import pretrain
from utils.config import parse

PATIENTS = "--patients 1500 --image_size 64 --paired 0.9 --workers 0 --seed 1"
PRETRAIN = (
    "--task in-hospital-mortality --vision_backbone resnet18 --transforms_cxr supervised --batch_size 64 "
    "--optimizer adamw --lr 2e-3 --epochs 10 --warmup_epochs 1 --name simclr"
)
PROBE = "--protocol lineareval --task phenotyping --batch_size 512 --epochs 100 --lr 1e-3"
RANDOM = "--load_state random --vision_backbone resnet18 --name random"
MARGIN = 0.04  # 0.07 to 0.09 with three seeds when this was written; with half as many steps, 0.03 to 0.06


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the synthetic patients."""
    folder = tmp_path_factory.mktemp("main_job")
    raw = folder / "raw"
    synthetic.main(parse(SyntheticConfig, f"{PATIENTS} --out {raw}".split()))
    tables = f"--mimic_iv {raw}/mimic-iv --mimic_cxr {raw}/mimic-cxr-jpg --out {folder}/store"
    extract_with_samples(parse(ExtractConfig, tables.split()))
    return folder / "store"


@pytest.fixture(scope="module")
def auroc(store: Path) -> dict[str, float]:
    """Test AUROC of a linear layer on frozen encoders: random ones, and SimCLR's both and each alone."""
    folder = store.parent
    shared = f"--store {store} --save_dir {folder}/runs --image_size 32 --device cpu"
    pretrain(parse(SimCLRConfig, f"{shared} {PRETRAIN}".split()))
    probe = f"{shared} {PROBE} --results_dir {folder}/results"
    pretrained = f"--load_state {folder}/runs/simclr/last.ckpt --fusion"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for flags in (RANDOM, *(f"{pretrained} {fusion}" for fusion in ("ehr", "cxr", "concatenation"))):
            classify.classify(parse(ClassifyConfig, f"{probe} {flags}".split()))
    assert "synthetic" in printed.getvalue()
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


def test_latent_states_allow_more_than_records_and_images_show(store: Path, auroc: dict[str, float]) -> None:
    config = parse(planted.PlantedConfig, f"--store {store} --patients 1500 --seed 1".split())
    reference = {task.name: score for task, _, score in planted.reference_scores(config)}
    assert auroc["concatenation"] + 0.05 < reference["phenotyping"] < 0.97
    assert reference["in-hospital-mortality"] > 0.85


def test_latent_states_of_other_patients_are_refused(store: Path) -> None:
    config = parse(planted.PlantedConfig, f"--store {store} --patients 1500 --seed 2".split())
    with pytest.raises(ValueError, match=r"was not made from .* --seed 2; give"):
        next(planted.reference_scores(config))
