"""--label_fraction: which labels a classifier learns from, and where that is recorded."""

from pathlib import Path

import pandas as pd
import pytest

from evaluation.plots.labels import Labels
from evaluation.seeds import over_seeds, select_rows
from evaluation.tables import Table
from tests.evaluation.result_rows import add_run
from tests.random_store import STAYS, write_random_store
from training import classify
from training.classify_config import ClassifyConfig
from utils import checkpoint
from utils.config import parse
from utils.log import logger

TASK = "length-of-stay"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture
def flags(store: Path, tmp_path: Path) -> list[str]:
    paths = ("--store", str(store), "--save_dir", str(tmp_path), "--results_dir", str(tmp_path / "results"))
    small = "--fusion ehr --data_pairs ehr_all --batch_size 8 --device cpu --epochs 1 --bootstrap 0"
    return [*paths, *small.split()]


def run(flags: list[str], *more: str | Path) -> None:
    classify.classify(parse(ClassifyConfig, [*flags, *map(str, more)]))


def test_a_fraction_is_trained_on_and_recorded_everywhere(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    monkeypatch.setattr(logger, "info", lambda text: said.append(text))
    common = ("--load_state", "random", "--ehr_dim", "8", "--task", TASK)
    run(flags, *common, "--label_fraction", "0.25")
    name = f"{TASK}-lineareval-ehr-random-labels0.25-seed0"
    state = tmp_path / name / "best.ckpt"
    assert checkpoint.load(state)["config"]["label_fraction"] == 0.25
    assert any(text.startswith(f"labels of 4 of {STAYS['train']} training subjects") for text in said)
    run(flags, *common, "--name", "all")
    run(flags, "--task", TASK, "--mode", "eval", "--load_state", state)
    rows = pd.read_csv(tmp_path / "results" / f"{TASK}.csv")
    fractions = {run: set(part["label_fraction"]) for run, part in rows.groupby("run")}
    assert fractions == {name: {0.25}, f"{name}-eval": {0.25}, "all": {1.0}}
    trained, again = (
        rows[(rows["run"] == run) & (rows["split"] == "test")] for run in (name, f"{name}-eval")
    )
    assert trained["value"].round(4).tolist() == again["value"].round(4).tolist()  # also mean labels of bins
    with pytest.raises(ValueError, match=r"the checkpoint says from which labels.*leave it out"):
        run(flags, "--task", TASK, "--mode", "eval", "--load_state", state, "--label_fraction", "0.25")


@pytest.mark.parametrize("fraction", ["0", "1.5", "-0.1"])
def test_a_fraction_that_is_none_is_refused(flags: list[str], fraction: str) -> None:
    with pytest.raises(ValueError, match=f"--label_fraction {float(fraction)} is out of range"):
        run(flags, "--load_state", "random", "--label_fraction", fraction)


def test_encoders_that_learnt_from_other_labels_are_refused(flags: list[str], tmp_path: Path) -> None:
    run(flags, "--protocol", "supervised", "--ehr_dim", "8", "--name", "few", "--label_fraction", "0.5")
    few = ("--load_state", tmp_path / "few" / "best.ckpt")
    for more in ("0.25 --seed 0", "0.5 --seed 1"):
        with pytest.raises(ValueError, match=r"few/best.ckpt is a classifier that learnt from other labels"):
            run(flags, "--protocol", "finetune", *few, "--name", "it", "--label_fraction", *more.split())
    run(flags, "--protocol", "lineareval", *few, "--name", "same", "--label_fraction", "0.5")
    run(flags, "--protocol", "lineareval", *few, "--name", "more")


def test_runs_with_other_fractions_are_not_averaged(tmp_path: Path) -> None:
    for seed, fraction in ((0, 0.1), (1, 0.1), (0, 1.0), (1, 1.0)):
        settings = {"label_fraction": fraction}
        add_run(tmp_path, seed, 0.5 + fraction / 10 + seed / 100, run=f"{fraction}-{seed}", settings=settings,
                label_fraction=fraction)  # fmt: skip
    table = over_seeds(select_rows(Table("phenotyping", (tmp_path,))).rows).set_index("label_fraction")
    assert table["mean"].round(6).to_dict() == {0.1: 0.515, 1.0: 0.605} and set(table["seeds"]) == {2}


def test_rows_of_older_versions_used_all_labels(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7)
    path = tmp_path / "phenotyping.csv"
    pd.read_csv(path).drop(columns="label_fraction").to_csv(path, index=False)
    add_run(tmp_path, 1, 0.8, label_fraction=0.1)
    assert select_rows(Table("phenotyping", (tmp_path,))).rows["label_fraction"].tolist() == [1.0, 0.1]


def test_the_picture_has_a_line_for_each_method_that_has_several_fractions(tmp_path: Path) -> None:
    for seed in (0, 1):
        for fraction in (0.01, 0.1, 1.0):
            for objective in ("simclr", "align"):
                value = (0.5 if objective == "align" else 0.6) + fraction / 10 + seed / 50
                add_run(
                    tmp_path, seed, value, run=f"{objective}{fraction}-{seed}",
                    objective=objective, label_fraction=fraction, checkpoint_hash=f"{objective}{seed}",
                    settings={"label_fraction": fraction},
                )  # fmt: skip
        add_run(tmp_path, seed, 0.9, run=f"best{seed}", checkpoint_hash=f"best{seed}", label_fraction=1.0,
                settings={"label_fraction": 1.0})  # fmt: skip
        add_run(tmp_path, seed, 0.9, run=f"alone{seed}", protocol="supervised", label_fraction=1.0)
    figure, path = Labels(tmp_path / "phenotyping.csv").draw()
    lines = {line.get_label(): line.get_xydata().round(6).tolist() for line in figure.axes[0].get_lines()}
    assert lines == {
        "SimCLR": [[0.01, 0.611], [0.1, 0.62], [1.0, 0.71]],
        "ALIGN": [[0.01, 0.511], [0.1, 0.52], [1.0, 0.61]],
    }
    assert path == tmp_path / "phenotyping_labels_auroc.png" and "SYNTHETIC" in figure.get_suptitle()
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1 %", "10 %", "100 %"]


def test_a_picture_without_fractions_is_refused(tmp_path: Path) -> None:
    add_run(tmp_path, 0, 0.7)
    with pytest.raises(ValueError, match="no method has runs of several --label_fraction"):
        Labels(tmp_path / "phenotyping.csv").draw()
