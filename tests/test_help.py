"""The help of every program reads like documentation."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import get_type_hints

import pytest

import align_trainer
import simclr_trainer
import vicreg_trainer
from datasets import export, extract
from datasets.synthetic import release as synthetic
from evaluation import compare, plots, results, summary
from tools import write_scripts as scripts
from training import classify, select_epoch
from utils.cli import run_cli

PROGRAMS = (
    simclr_trainer.SimCLRConfig, vicreg_trainer.VICRegConfig, align_trainer.AlignConfig,
    classify.ClassifyConfig, select_epoch.EpochEvaluationConfig, extract.ExtractConfig,
    export.ExportConfig, synthetic.SyntheticConfig, scripts.ScriptsConfig, summary.SummaryConfig,
    results.TableConfig, compare.CompareConfig, plots.PlotsConfig,
)  # fmt: skip


def settings(config: type) -> Iterator[Field]:
    """All fields of a config, nested ones too."""
    for field in fields(config):
        kind = get_type_hints(config)[field.name]
        yield from settings(kind) if is_dataclass(kind) else (field,)


@pytest.mark.parametrize("config", PROGRAMS, ids=lambda config: config.__name__)
def test_no_two_settings_share_a_flag(config: type) -> None:
    flags = [field.name for field in settings(config)]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("config", PROGRAMS, ids=lambda config: config.__name__)
def test_help_tells_the_program_and_each_flag_with_its_default(
    config: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["program", "--help"])
    with pytest.raises(SystemExit) as left:
        run_cli(lambda _: None, config)
    shown = re.sub(r"[\s\u2502]", "", capsys.readouterr().out)  # however the terminal breaks its lines
    assert left.value.code == 0
    told = inspect.getdoc(config)
    assert not told.startswith(f"{config.__name__}(") and re.sub(r"\s", "", told) in shown
    for setting in settings(config):
        meaning = setting.metadata["help"]  # running text, which breaks where the terminal's line ends
        assert meaning.endswith(".") and len(meaning.split()) > 1 and "\n" not in meaning
        place = shown.find(meaning.replace(" ", ""))
        assert place > 0, f"--{setting.name}: {meaning}"
        after = shown[place + len(meaning.replace(" ", "")) :]
        assert after.startswith(("(default:", "(required)")), f"--{setting.name}: {meaning}"
