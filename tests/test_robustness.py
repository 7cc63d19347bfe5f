"""Classifiers on ever fewer X-rays: what training.robustness writes is what run_gpu.py --drop_cxr reports."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.plots.robustness import Robustness, draw_robustness
from tests.random_store import write_random_store
from training import robustness
from training.classify import classify
from training.classify_config import ClassifyConfig
from training.robustness import RobustnessConfig, find_runs
from utils import checkpoint
from utils.config import parse

FLAGS = (
    *("--protocol", "supervised", "--task", "phenotyping", "--data_pairs", "partial", "--image_size", "32"),
    *("--batch_size", "16", "--device", "cpu", "--epochs", "1", "--bootstrap", "20"),
)
SHAPE = ("--ehr_dim", "8", "--vision_backbone", "test_resnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two fusions and of the EHR alone, and their robustness."""
    folder = tmp_path_factory.mktemp("robustness")
    store = write_random_store(folder / "store")
    paths = ["--store", store, "--save_dir", folder / "runs", "--results_dir", folder / "results"]
    for name, seed in (("ehr", 0), ("medfuse", 0), ("medfuse", 1)):
        flags = ["--fusion", name, "--seed", seed, "--name", f"{name}-{seed}"]
        classify(parse(ClassifyConfig, [*map(str, paths), *FLAGS, *SHAPE, *map(str, flags)]))
    state = folder / "runs/medfuse-1/best.ckpt"
    flags = ["--mode", "eval", "--load_state", state, "--drop_cxr", 0, 0, 0.5, "--name", "half", "--seed", 1]
    classify(parse(ClassifyConfig, [*map(str, paths), *FLAGS, "--fusion", "medfuse", *map(str, flags)]))
    rates = (0.0, 0.5, 1.0)
    robustness.main(RobustnessConfig((folder / "runs",), out=folder / "out", rates=rates, bootstrap=20))
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "out/phenotyping.csv")


def test_it_is_what_a_run_with_dropped_xrays_predicts(folder: Path) -> None:
    settings = robustness.read_run(folder / "runs/medfuse-1", None)[1]
    tested = robustness.predict_run(folder / "runs/medfuse-1", settings)
    predictions = pd.read_csv(folder / "runs/half/predictions_test.csv")["probability"].to_numpy()
    assert np.allclose(tested.probability(0.5).ravel(), predictions, atol=1e-6)
    assert not np.allclose(tested.probability(0.0).ravel(), predictions, atol=1e-6)


def test_seeds_are_averaged_and_compared_with_the_ehr_alone(table: pd.DataFrame) -> None:
    assert len(table) == 2 * 2 * 3 and set(table["trained_on"]) == {"all"}
    runs = table.groupby("fusion")["runs"].first()
    assert runs.to_dict() == {"ehr": 1, "medfuse": 2}
    medfuse, ehr = (table[table["fusion"] == name].reset_index() for name in ("medfuse", "ehr"))
    assert np.allclose(medfuse["difference"], medfuse["value"] - ehr["value"])
    assert not ehr[["difference", "difference_low", "difference_high"]].to_numpy().any()
    assert ehr.groupby("tested_on")["value"].nunique().eq(1).all()
    assert medfuse.groupby("tested_on")["value"].nunique().eq(3).all()
    assert ((medfuse["low"] < medfuse["value"]) & (medfuse["value"] < medfuse["high"])).all()


def test_the_picture_has_a_panel_for_each_fusion_and_a_legend_outside(
    folder: Path, table: pd.DataFrame
) -> None:
    assert (folder / "out/phenotyping.png").read_bytes()[:4] == b"\x89PNG"
    figure, _ = Robustness(folder / "out/phenotyping.csv").draw()
    assert "synthetic" in figure.get_suptitle() or table["data"].iloc[0] in figure.get_suptitle()
    (axis,) = figure.axes
    assert axis.get_title() == "MedFuse" and axis.get_legend() is None and len(figure.legends) == 1
    assert (
        len({line.get_color() for line in axis.get_lines()}) == 3
    )  # EHR alone, all stays, those with an X-ray
    fifteen = pd.concat([table.assign(fusion=f"fusion {n}") for n in range(15)])
    assert len(draw_robustness(fifteen, "many").axes) == 15


def test_runs_of_other_encoders_are_no_seeds_of_one_method(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(folder / "runs" / f"medfuse-{seed}", tmp_path / f"medfuse-{seed}")
    state = checkpoint.load(tmp_path / "medfuse-1/best.ckpt")
    state["config"]["cxr_weights"] = "external"
    checkpoint.save(tmp_path / "medfuse-1/best.ckpt", state)
    with pytest.raises(ValueError, match=r"medfuse-1 and another .* differ in their splits, .*or encoders"):
        robustness.main(RobustnessConfig((tmp_path,), out=tmp_path / "out", rates=(0.0,), bootstrap=2))


def test_mistakes_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no best\.ckpt; give the folders of runs"):
        find_runs([tmp_path])
    with pytest.raises(ValueError, match="--rates must be fractions"):
        RobustnessConfig((tmp_path,), rates=(2.0,))
    with pytest.raises(ValueError, match="--bootstrap must be 1 or more"):
        RobustnessConfig((tmp_path,), bootstrap=0)
