"""A study composes commands that exist, with equal budgets, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from datasets.extract_config import ExtractConfig
from datasets.synthetic.config import SyntheticConfig
from evaluation.decision import DecisionConfig
from evaluation.paper import Paper
from evaluation.plots.labels import Labels
from evaluation.report.__main__ import ReportConfig
from evaluation.results import append
from evaluation.thresholds import Thresholds
from simclr_trainer import SimCLRConfig
from tools.runner import Runner
from tools.study import METHODS, Study, StudyConfig, search, search_folder, take_up, trainings
from training.classify import default_name
from training.classify_config import ClassifyConfig, check_config
from training.search import SearchConfig, chosen_space, script
from utils.checkpoint import Origin
from utils.config import parse

CONFIGS = {
    "datasets.synthetic": SyntheticConfig, "datasets.extract": ExtractConfig, "training.search": SearchConfig,
    "evaluation.thresholds": Thresholds, "evaluation.decision": DecisionConfig, "evaluation.plots": Labels,
    "evaluation.report": ReportConfig, "evaluation.tables": Paper, "simclr_trainer.py": SimCLRConfig,
    "run_gpu.py": ClassifyConfig,
}  # fmt: skip


class Recorder(Runner):
    """A runner that notes the settings of the runs, and leaves what the next ones read."""

    def __init__(self, config: StudyConfig) -> None:
        super().__init__(1, config.out / "logs")
        self.study = config
        self.runs: dict[str, object] = {}

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        program, *words = command[1:] if command[0] == "-m" else command
        if program in ("evaluation.plots", "evaluation.tables"):
            assert words.pop(0) in ("labels", "paper")
        self.runs[name] = config = parse(CONFIGS[program], words)
        if isinstance(config, SearchConfig):
            text = script(config.classifier, config.classifier.run.name, "trial 1", "auroc", 0.5)
            folder = search_folder(self.study, config.classifier.protocol)
            folder.mkdir(parents=True)
            (folder / "best.sh").write_text(text)
        elif isinstance(config, ExtractConfig):
            config.out.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.run(name, command, environment)

    def finish(self) -> None:
        pass


def made(config: StudyConfig) -> dict[str, object]:
    """Return the settings of all runs that a study starts, by name."""
    recorder = Recorder(config)
    Study(config, recorder).make()
    return recorder.runs


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return StudyConfig(tmp_path / "it", seeds=2, label_fractions=(0.1, 1.0))


def test_methods_have_equal_budgets_and_each_seed_its_own_encoders(config: StudyConfig) -> None:
    runs = made(config)
    searches = [run for run in runs.values() if isinstance(run, SearchConfig)]
    assert len(searches) == len(METHODS)
    assert len({(run.trials, run.classifier.optim.epochs, run.search_dir) for run in searches}) == 1
    for run in searches:
        assert "optim.lr" in chosen_space(run) and run.classifier.run.seed == 0
    for which in trainings(config):
        run = runs[which.name]
        assert isinstance(run, ClassifyConfig)
        check_config(run)
        assert (run.run.seed, run.label_fraction, run.protocol) == (which.seed, which.fraction, which.method)
        assert run.run.resume and run.results_dir == config.results and run.run.save_dir == config.runs
        own = str(config.runs / f"simclr-seed{which.seed}" / "last.ckpt")
        assert run.load_state == ("" if which.method == "supervised" else own)
    assert (
        len([run for run in runs.values() if isinstance(run, ClassifyConfig)]) == len(trainings(config)) == 12
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_folder_of_a_search_is_where_the_search_writes(method: str, config: StudyConfig) -> None:
    of = parse(SearchConfig, search(config, method)[2:])
    origins = [Origin("", "simclr", "")] if of.classifier.encoder_checkpoints else []
    assert of.search_dir / default_name(of.classifier, origins) == search_folder(config, method)


def test_a_second_start_runs_only_what_is_missing(config: StudyConfig) -> None:
    runs = made(config)
    assert "raw data" in runs and {"page", "test scores", "picture of few labels"} <= set(runs)
    for which in trainings(config):
        append(config.table, [{"run": which.name, "task": config.task, "split": "test", "metric": "auroc"}])
        folder = config.runs / which.name
        folder.mkdir(parents=True)
        for name in ("thresholds", "decision"):
            (folder / f"{name}_test.csv").touch()
    again = set(made(config))
    short = {"extraction", "simclr-seed0", "simclr-seed1", "page", "test scores", "picture of few labels"}
    assert again == short
    (config.runs / "finetune-labels1-seed1" / "decision_test.csv").unlink()
    assert set(made(config)) == short | {"finetune-labels1-seed1-decision"}


def test_a_study_goes_on_as_it_began(config: StudyConfig) -> None:
    take_up(config)
    take_up(StudyConfig(config.out, seeds=2, label_fractions=(0.1, 1.0), jobs=7))
    with pytest.raises(ValueError, match=r"began with --seeds 2, --label_fractions \[0.1, 1.0\]; use that"):
        take_up(StudyConfig(config.out))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task length-of-stay", "its bins have no thresholds; choose another task"),
        ("--trials 0", "--trials must be 1 or more, not 0"),
        ("--label_fractions 0.5", "1 be among them, not"),
        ("--label_fractions 0 1", "must be above 0, up to 1"),
    ],
)
def test_studies_that_cannot_work_are_refused(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(StudyConfig, words.split())
    assert message in " ".join(capsys.readouterr().err.split())
