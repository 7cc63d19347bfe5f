"""Flags and YAML give the same settings, and errors suggest the most similar name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from tyro.conf import subcommand

from utils import config
from utils.yaml_files import load_yaml, read_yaml_mapping


@dataclass(frozen=True)
class Data:
    """What is read."""

    synonyms: ClassVar = {"modalities": "pairs", "steps": "limit_of_another_program"}

    batch_size: int = 256
    """Samples a batch."""
    data_ratio: float = 1.0
    """Share of the unpaired samples, 0 to 1."""
    store: Path = Path("data/synthetic")
    """Folder of the store."""
    pairs: Literal["paired", "partial"] = "paired"
    """Which samples."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch_size must be 1 or more, not {self.batch_size}")


@dataclass(frozen=True)
class Program:
    task: str
    """What is predicted."""
    data: Data = Data(batch_size=16)
    milestones: tuple[float, ...] = (0.6, 0.8)
    size: tuple[int, int] = (2, 3)
    limit: int | None = None
    draw: bool = False


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        config.parse(Program, argv)
    assert stop.value.code == 2
    return capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("flag", ["--batch_size=8", "--batch-size=8"])
def test_flags_are_flat_with_underscores_or_dashes(flag: str) -> None:
    assert config.parse(Program, ["--task", "x", flag]) == Program("x", Data(batch_size=8))


def test_the_last_flag_wins() -> None:
    assert config.parse(Program, ["--task", "x", "--limit", "1", "--limit", "2"]).limit == 2


@pytest.mark.parametrize(("word", "value"), [("--draw", True), ("--no_draw", False), ("--no-draw", False)])
def test_switches(word: str, value: bool) -> None:
    assert config.parse(Program, ["--task", "x", word]).draw is value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--task x --batch_sise 3", "unknown flag --batch_sise; did you mean --batch_size?"),
        ("--task x --limt=3", "unknown flag --limt; did you mean --limit?"),
        ("--task x --modalities all", "unknown flag --modalities; did you mean --pairs?"),
        ("--task x --modalitys all", "unknown flag --modalitys; did you mean --pairs?"),
        ("--task x --steps 3", "unknown flag --steps; did you mean --store?"),
        ("--taks x", "--taks"),
        ("--task x --pairs all", "paired"),
        ("--task x --batch_size many", "many"),
        ("--task x --batch_size 0", "--batch_size must be 1 or more, not 0"),
        ("--draw", "--task"),
        ("--task x stray", "stray"),
        ("--config", "--config: expected one argument"),
        ("--config nowhere.yaml", "--config nowhere.yaml: No such file or directory"),
    ],
)
def test_wrong_flags_are_refused(capsys: pytest.CaptureFixture[str], argv: str, message: str) -> None:
    assert message in refusal(capsys, argv.split())


def test_a_union_of_configs_is_a_command_with_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    either = Annotated[Data, subcommand("data")] | Annotated[Program, subcommand("program")]
    assert config.parse(either, ["data", "--batch_size", "3"]) == Data(3)
    assert config.parse(either, ["program", "--task", "x"]) == Program("x")
    with pytest.raises(SystemExit):
        config.parse(either, ["data", "--batch_sise", "3"])
    assert "unknown flag --batch_sise; did you mean --batch_size?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        config.parse(either, ["data", "--help"])
    assert "Share of the unpaired samples, 0 to 1." in capsys.readouterr().out


def test_help_shows_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        config.parse(Program, ["--help"], "Trains a model.")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0
    for text in ("Trains a model.", "--batch_size INT Samples a batch. (default: 16)", "--config FILE"):
        assert text in shown


def test_only_the_first_process_prints_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "RANK", "1")
    assert refusal(capsys, ["--tsk", "x"]) == ""
    assert refusal(capsys, ["--limit", "x"]) == ""


def from_yaml(text: str) -> Program:
    return config.from_dict(Program, load_yaml(text, "config"))


FULL = Program("x", Data(3, 0.1, Path("a b"), "partial"), (), (4, 5), 7, True)


@pytest.mark.parametrize("settings", [Program("x"), Program("1"), Program("null"), FULL])
def test_yaml_gives_back_the_settings(settings: Program) -> None:
    values = config.to_dict(settings)
    assert config.from_dict(Program, values) == settings
    assert config.from_dict(Program, load_yaml(yaml.safe_dump(values), "x")) == settings


def test_a_file_gives_defaults_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("task: y\ndata: {data_ratio: 1e-3}\n")
    argv = ["--config", str(file), "--limit", "3"]
    assert config.parse(Program, argv) == Program("y", Data(16, 0.001), limit=3)
    assert config.parse(Program, [f"--config={file}", "--task", "z"]).task == "z"


def test_a_file_may_leave_a_required_flag_to_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("limit: 3\n")
    assert config.parse(Program, ["--config", str(file), "--task", "z"]) == Program("z", limit=3)
    assert "--task" in refusal(capsys, ["--config", str(file)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "task: x\ndata: {batch_sise: 3}",
            "unknown key data.batch_sise; did you mean data.batch_size?",
        ),
        ("batch_size: 3", "unknown key batch_size; did you mean data.batch_size?"),
        ("task: x\ndata: {pairs: all}", "data.pairs is 'all': input should be 'paired' or 'partial'"),
        ("task: x\ndata: {batch_size: 1.5}", "data.batch_size is 1.5: input should be a valid integer"),
        ("task: x\ndata: {batch_size: true}", "data.batch_size must be int, not True"),
        ("task: x\ndata: {batch_size: 0}", "--batch_size must be 1 or more"),
        ("task: x\ndraw: 1", "draw must be bool, not 1"),
        ("task: x\nsize: [1, 2, 3]", "size is [1, 2, 3]: tuple should have at most 2 items"),
        ("task: x\nlimit: many", "limit is 'many': input should be a valid integer"),
        ("task: x\ndata: 3", "data must hold keys, not 3"),
        ("[1]", "must hold keys"),
        ("a: b: c", "not valid YAML"),
        ("limit: 1", "task is required and missing"),
        ("task: x\ntask: y", "the key task is given twice"),
        ("task: x\ndata: {batch_size: 1, batch_size: 2}", "the key batch_size is given twice"),
        ("task: x\ndata: {data_ratio: .nan}", "data.data_ratio is nan: input should be a finite number"),
        ("task: x\ndata: {data_ratio: -.inf}", "data.data_ratio is -inf: input should be a finite number"),
        (
            "task: x\nmilestones: [0.5, 1e309]",
            "milestones is [0.5, '1e309']: input should be a finite number",
        ),
        ("task: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("task: " + "[" * 20_000, "nested too deeply"),
    ],
)
def test_yaml_that_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^config: ") as error:
        from_yaml(text)
    assert message in str(error.value)


def test_a_yaml_error_exits_like_a_flag_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("tsak: x")
    said = refusal(capsys, ["--config", str(file)])
    assert f"{file}: unknown key tsak; did you mean task?" in said


def test_a_value_that_yaml_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError, match="not set"):
        config.to_dict(Program({1}))


# A few aliases that name some billions of texts.
BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize("end", ["", "task: *j\n", "milestones: *j\n"])
def test_an_endless_value_is_shortened_in_the_message(end: str) -> None:
    with pytest.raises(ValueError, match="unknown key a") as error:
        from_yaml(BOMB + end)
    assert len(str(error.value)) < 1000
    with pytest.raises(ValueError, match="input should be a valid string") as error:
        config.from_dict(Program, {"task": yaml.safe_load(BOMB)["j"]})
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e309"])
def test_no_setting_is_nan_or_infinite(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--data_ratio" in refusal(capsys, ["--task", "x", f"--data_ratio={value}"])
    assert "--milestones" in refusal(capsys, ["--task", "x", "--milestones", "0.5", value])


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig", "utf-8"])
def test_a_config_may_have_a_byte_order_mark(tmp_path: Path, codec: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes("task: x\r\ndata: {store: höhe}\r\n".encode(codec))
    assert config.parse(Program, ["--config", str(file)]).data.store == Path("höhe")


def test_a_config_that_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"task: \xff\xfe\n")
    assert f"{file}: not valid YAML" in refusal(capsys, ["--config", str(file)])


def test_a_yaml_mapping_must_hold_keys(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"a\.yaml must hold keys, not \[1\]"):
        read_yaml_mapping(tmp_path / "a.yaml")


@given(st.text() | st.binary())
def test_any_text_is_settings_or_one_error(text: str | bytes) -> None:
    try:
        values = load_yaml(text, "c.yaml")
        built = config.from_dict(Program, values, "c.yaml")
    except ValueError as error:
        assert str(error).startswith("c.yaml")
    else:
        assert values["task"] == built.task


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    ["task", "data", "batch_size", "data_ratio", "store", "pairs", "milestones", "size", "draw"]
)


@example({"task": 0})
@example({"task": -2.5})
@given(st.dictionaries(KEYS, st.recursive(LEAVES, lambda part: st.lists(part) | st.dictionaries(KEYS, part))))
def test_settings_that_are_built_are_those_that_were_written(values: dict) -> None:
    try:
        built = config.to_dict(config.from_dict(Program, values))
    except ValueError:
        return
    for name, value in values.items():
        written = value if not isinstance(value, dict) else built[name] | value
        if name == "task" and type(value) in (int, float):  # a number is a text to be: --task 0
            assert isinstance(built[name], str) and str(type(value)(built[name])) == str(value)
            continue
        assert built[name] == (list(written) if isinstance(written, list) else written) or name == "store"
