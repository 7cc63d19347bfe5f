"""The help of every command reads like documentation."""

import inspect
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import get_args, get_type_hints

import pytest

from datasets.extract_config import ExtractConfig
from models.objectives import OBJECTIVES
from simclr_trainer import SimCLRConfig
from training.classify_config import ClassifyConfig
from utils import cli
from utils.config import parse, synonyms

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted(
    path.relative_to(ROOT)
    for folder in (ROOT, *(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"))
    for path in (folder.glob("*.py") if folder == ROOT else folder.rglob("*.py"))
    if "run_cli(" in path.read_text() and path != Path(cli.__file__)
)
SLOW_TO_IMPORT = {
    *(
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pandas",
        "pyarrow",
        "polars",
        "sklearn",
        "scipy",
        "matplotlib",
    )
}
FAST_PROGRAMS = [
    Path(name)
    for name in (
        *("run_gpu.py", "simclr_trainer.py", "vicreg_trainer.py", "align_trainer.py", "epoch_evaluation.py"),
        *("training/pretrain.py", "training/search.py", "evaluation/report/__main__.py"),
        *("datasets/extract.py", "datasets/synthetic/__main__.py"),
    )
]
FIRST_WORDS = {"training/pretrain.py": OBJECTIVES}  # of programs that choose their flags by the first word


def settings(config: type) -> Iterator[Field]:
    """All fields of a config, nested ones too."""
    for field in fields(config):
        kind = get_type_hints(config)[field.name]
        yield from settings(kind) if is_dataclass(kind) else (field,)


def check_help(config: type, words: list[str], printed: str) -> None:
    """The help has the config's docstring, and for each flag its meaning and its default."""
    text = " ".join(word for word in printed.split() if word != "│")  # the border of a box of flags
    docstring = inspect.getdoc(config)
    assert not docstring.startswith(f"{config.__name__}(")
    assert " ".join(docstring.split()) in text, words
    flags = [setting.name for setting in settings(config)]
    assert len(flags) == len(set(flags)), "two settings share a flag"
    for setting in settings(config):
        meaning = setting.metadata["help"]
        assert meaning.endswith(".") and len(meaning.split()) > 1, f"--{setting.name}: {meaning}"
        ends = [f"{meaning} ({end}" for end in ("default:", "required)")]
        assert any(end in text for end in ends), f"--{setting.name}: {meaning}"


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_help_tells_the_program_and_each_flag_with_its_default(
    program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run each program up to its call of run_cli, and ask that for help."""
    checked = []
    run_cli = cli.run_cli

    def show_and_check_help(main: Callable[[object], None], config: type | UnionType) -> None:
        for part in get_args(config) or (config,):
            words = [part.__name__.lower()] if part is not config else []
            monkeypatch.setattr("sys.argv", ["program", *words, "--help"])
            with pytest.raises(SystemExit) as stopped:
                run_cli(main, config)
            assert stopped.value.code == 0
            check_help(part, words, capsys.readouterr().out)
            checked.append(part)

    monkeypatch.setenv("COLUMNS", "120")  # too narrow for two boxes side by side
    monkeypatch.setattr(cli, "run_cli", show_and_check_help)
    for word in FIRST_WORDS.get(str(program), ("",)):
        monkeypatch.setattr("sys.argv", ["program", word])
        runpy.run_path(str(ROOT / program), run_name="__main__")
    assert checked


def test_every_command_is_found() -> None:
    names = {str(program) for program in PROGRAMS}
    assert names >= {"run_gpu.py", "datasets/verify.py", "evaluation/tables.py", "benchmarks/all.py"}


def imports_of(program: Path, words: list[str], status: int) -> set[str]:
    """Run a program, which must end with this status; return the modules that it imports."""
    path = program.parent if program.name == "__main__.py" else program.with_suffix("")
    start = [program] if program.parent == Path() else ["-m", ".".join(path.parts)]
    command = [sys.executable, "-X", "importtime", *map(str, start), *words]
    ended = subprocess.run(command, capture_output=True, cwd=ROOT, text=True)
    assert ended.returncode == status, ended.stderr[-2000:]
    lines = ended.stderr.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize("program", FAST_PROGRAMS, ids=str)
def test_help_waits_for_no_large_package(program: Path) -> None:
    imported = imports_of(program, ["--help"], 0)
    assert "tyro" in imported and not imported & SLOW_TO_IMPORT


@pytest.mark.parametrize("words", [["--fusions", "ehr"], ["--task", "mortality"]])
def test_wrong_flags_wait_for_no_large_package(words: list[str]) -> None:
    imported = imports_of(Path("run_gpu.py"), words, 2)
    assert "tyro" in imported and not imported & SLOW_TO_IMPORT


def test_a_training_begins_without_what_only_reports_need() -> None:
    listing = "import sys, training.classify, training.pretraining; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", listing], capture_output=True, cwd=ROOT, text=True)
    imported = set(ended.stdout.split())
    late = {"sklearn", "scipy.special", "matplotlib", "pandas", "polars", "optuna", "timm", "torchvision"}
    assert "torch" in imported and not imported & late


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "lars"])
def test_a_step_of_a_resnet_needs_neither_torchvision_nor_pytorchs_compiler(optimizer: str) -> None:
    step = f"""
import sys, torch
from models.encoders import CXREncoder
from training.optim import OptimConfig, build_optimizer
encoder = CXREncoder("resnet18")
optimizer = build_optimizer(OptimConfig(optimizer="{optimizer}"), encoder)
encoder(torch.rand(2, 1, 32, 32)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print(*sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", step], capture_output=True, cwd=ROOT, text=True)
    imported = set(ended.stdout.split())
    assert "torch" in imported and not imported & {"torchvision", "torch._dynamo", "sympy"}


def test_help_piped_into_head_ends_without_a_traceback() -> None:
    words = [sys.executable, "-m", "datasets.verify", "--help"]
    program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    program.stdout.close()  # as `head` does once it has its lines
    assert program.stderr.read() == ""
    assert program.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    "config", [ClassifyConfig, SimCLRConfig, ExtractConfig], ids=lambda kind: kind.__name__
)
def test_a_synonym_is_no_flag_itself_and_leads_to_one(config: type) -> None:
    flags = {f"--{setting.name}" for setting in settings(config)}
    names = synonyms(config)
    assert set(names.values()) <= flags and not set(names) & flags


@pytest.mark.parametrize(
    ("other", "flag"),
    [
        ("--learning_rate", "--lr"),
        ("--learning-rate", "--lr"),
        ("--num_epochs", "--epochs"),
        ("--checkpoint", "--load_state"),
        ("--output_dir", "--save_dir"),
        ("--data_dir", "--store"),
        ("--backbone", "--vision_backbone"),
        ("--epoch", "--epochs"),
    ],
)
def test_the_flag_of_another_program_leads_to_ours(
    other: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(ClassifyConfig, [other, "1"])
    assert f"unknown flag {other}; did you mean {flag}?" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["tools.demo", "tools.run_table"])
def test_programs_of_environment_variables_answer_and_do_nothing(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "Environment variables" in done.stdout and not list(tmp_path.iterdir())
