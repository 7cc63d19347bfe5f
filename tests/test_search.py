"""A search of settings: on the validation split alone, at equal budgets, and with the command of the best."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from datasets.data_config import DataConfig
from datasets.other_splits import open_store
from datasets.samples import load_samples
from evaluation.plots.search import Search
from tasks import TASKS
from tests.random_store import write_random_store
from training import search
from training.classify_config import ClassifyConfig
from training.search import SearchConfig, script, space_of
from utils.config import Range, parse, replace_settings, search_space, to_flags

TASK = "phenotyping"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_random_store(tmp_path / "store")


def flags(store: Path, *more: object) -> list[str]:
    paths = ("--store", store, "--search_dir", store.parent / "search", "--save_dir", store.parent)
    small = "--fusion ehr --data_pairs ehr_all --batch_size 8 --device cpu --epochs 2 --trials 5"
    model = f"--task {TASK} --load_state random --ehr_dim 8 --lr 0.001"
    return [*map(str, paths), *small.split(), *model.split(), *map(str, more)]


def test_a_search_reads_no_test_sample_and_ends_with_the_command_of_the_best(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store / TASK / "test_listfile.csv"
    path.write_bytes(path.read_bytes().replace(b"0", b"x"))  # of the same size: reading it is an error
    with pytest.raises(ValueError, match="content is not what the manifest says"):
        load_samples(open_store(DataConfig(store=store)), TASKS[TASK], "test", DataConfig(), 0)
    search.search(parse(SearchConfig, flags(store)))
    folder = store.parent / "search" / f"{TASK}-lineareval-ehr-random-seed0"
    trials = pd.read_csv(folder / "trials.csv")
    assert trials["trial"].tolist() == list(range(5)) and trials["optim.lr"][0] == 0.001
    assert trials["optim.lr"].nunique() == trials["optim.weight_decay"].nunique() == 5
    assert not list(folder.rglob("*.ckpt")) and not list(folder.rglob("predictions*"))
    log = pd.read_csv(folder / "trial003" / "log.csv")
    assert trials["value"][3] == pytest.approx(log["auroc"].max())
    figure, picture = Search(folder).draw()
    assert "synthetic data" in figure.get_suptitle() and picture.is_file()
    assert figure.axes[0].get_ylabel() == "AUROC, validation" and len(figure.axes) == 2
    best = trials.loc[trials["value"].idxmax()]
    script = ["bash", folder / "best.sh", "--epochs", "1"]
    command = subprocess.check_output(script, env={"LAUNCH": "echo"}, text=True)
    program, *words = command.split()
    config = parse(ClassifyConfig, words)
    assert program == "run_gpu.py" and (config.optim.lr, config.optim.epochs) == (best["optim.lr"], 1)
    assert config.run.name == f"{TASK}-lineareval-ehr-random-seed0-searched-with-seed0"
    assert config.data.store == store and config.run.save_dir == store.parent
    said = capsys.readouterr().out
    assert "the test split is not opened" in said and f"bash {folder / 'best.sh'}" in said
    search.search(parse(SearchConfig, flags(store, "--format", "pdf")))  # nothing is left to do
    assert (folder / "search.pdf").read_bytes().startswith(b"%PDF-")
    assert pd.read_csv(folder / "trials.csv").equals(trials)


def test_a_store_for_a_search_refuses_its_test_split(store: Path) -> None:
    for data in (DataConfig(store=store), DataConfig(store=store, fold="1/2")):
        sealed = replace(open_store(data), without_test=True)
        with pytest.raises(ValueError, match="a search does not open the test split"):
            load_samples(sealed, TASKS[TASK], "test", replace(data, data_pairs="partial"), 0)
        assert len(load_samples(sealed, TASKS[TASK], "train", replace(data, data_pairs="partial"), 0))
    with pytest.raises(ValueError, match="a search does not open the test split"):
        replace(open_store(DataConfig(store=store)), without_test=True).listfile(TASK, "test")


def test_methods_in_one_folder_have_one_budget_and_a_search_goes_on_as_it_began(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done(Exception):
        """The search would begin."""

    def stop(*_: object) -> None:
        raise Done

    monkeypatch.setattr("training.study.SharedStudy", stop)

    def begin(*more: str) -> None:
        with pytest.raises(Done):
            search.search(parse(SearchConfig, flags(store, *more)))

    begin()
    begin()
    begin("--protocol", "supervised", "--load_state", "")
    begin("--task", "radiology", "--epochs", "9")  # compared with no other
    begin("--label_fraction", "0.5", "--trials", "7")
    budgets = {"--epochs 3": "--epochs 2", "--trials 6": "--trials 5", "--no-prune": "--prune True"}
    for more, said in budgets.items():
        other = ("--protocol", "supervised", "--load_state", "", "--seed", "1")
        with pytest.raises(ValueError, match=f"was searched with {said}, and methods are compared at equal"):
            search.search(parse(SearchConfig, flags(store, *other, *more.split())))
    with pytest.raises(ValueError, match=r"began with other values of settings; see its search.yaml"):
        search.search(parse(SearchConfig, flags(store, "--batch_size", "4")))


def space(*words: str) -> set[str]:
    return {path.rpartition(".")[2] for path in space_of(parse(ClassifyConfig, list(words)))}


def test_only_settings_with_an_effect_are_searched() -> None:
    common = {"lr", "weight_decay"}
    assert space("--protocol", "lineareval", "--load_state", "x") == common
    assert space("--protocol", "finetune", "--load_state", "x") == common | {"head_lr", "layer_lr_decay"}
    assert space("--protocol", "supervised") == common | {"ehr_dropout"}
    assert space("--protocol", "supervised", "--fusion", "mmtm") == common | {"ehr_dropout", "layer_after"}
    assert space("--protocol", "supervised", "--fusion", "cxr") == common
    encoders = ("--load_state_ehr", "x", "--load_state_cxr", "x")
    frozen = ("--protocol", "supervised", "--fusion", "early", *encoders)
    assert space(*frozen) == common
    assert {"shaspec_alpha", "shaspec_beta", "shaspec_dropout"} < space("--fusion", "shaspec")


def test_the_default_of_a_setting_is_in_its_range_or_turns_it_off() -> None:
    off = {"optim.head_lr"}
    for path, tried in search_space(ClassifyConfig).items():
        value = ClassifyConfig()
        for part in path.split("."):
            value = getattr(value, part)
        value = 0.0 if value is None else value
        inside = tried.low <= value <= tried.high if isinstance(tried, Range) else value in tried
        assert inside != (path in off), path
        for end in (tried.low, tried.high) if isinstance(tried, Range) else tried:
            kind = type(value)
            replace_settings(ClassifyConfig(), {path: kind(end)})  # which checks itself


@pytest.mark.parametrize(
    "words",
    [
        "--fusion mmtm --layer_after -1 --milestones 0.5 0.9 --name a --store some/where",
        "--drop_cxr 0.1 0.2 0.3 --data_pairs partial --pretrained --resume --lr 3e-05 --label_fraction 0.1",
    ],
)
def test_the_flags_of_a_config_make_it(words: str) -> None:
    config = parse(ClassifyConfig, words.split())
    assert parse(ClassifyConfig, to_flags(config)) == config and to_flags(ClassifyConfig()) == []
    text = script(config, "a b", "trial 1 of 2", "auroc", 0.5)
    assert "0.5000 on the validation split" in text and "'a b'-with-seed" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--settings", "lr", "head_lr"),
            "--settings head_lr: not searched for this classifier; .* lr",
        ),
        (("--mode", "eval"), "--mode eval trains nothing"),
        (("--load_state", ""), "needs --load_state"),
    ],
)
def test_searches_that_cannot_work_are_refused(store: Path, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search.search(parse(SearchConfig, flags(store, *more)))
    assert not (store.parent / "search").exists()


def test_a_split_that_cannot_choose_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.scoring.has_scorable_label", lambda task, labels: False)
    with pytest.raises(ValueError, match="no label of phenotyping has two classes in the validation split"):
        search.search(parse(SearchConfig, flags(store)))


def test_several_processes_of_torchrun_are_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start the same command several times"):
        search.search(parse(SearchConfig, flags(store)))


def test_every_trial_is_drawn_in_the_picture(tmp_path: Path) -> None:
    states = {"trial": [0, 1, 2], "state": ["complete", "pruned", "failed"], "value": [0.6, 0.5, np.nan]}
    pd.DataFrame(states).to_csv(tmp_path / "trials.csv", index=False)
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({"data": "synthetic data", "monitor": "kappa"}))
    figure, _ = Search(tmp_path).draw()
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert shown == ["complete (1)", "pruned (1)", "failed (1)", "best so far"] and len(figure.axes) == 1
    assert figure.axes[0].get_ylabel() == "Cohen's kappa, validation"
