"""Faulty flags and YAML: either what is parsed is what was written, or the error names the flag or file."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import yaml

import align_trainer
import simclr_trainer
import vicreg_trainer
from datasets import export
from datasets.extract_config import ExtractConfig
from datasets.synthetic.config import SyntheticConfig
from evaluation import tables
from tasks import samples
from tests.fuzz.cases import CORRECT, CommandResult, Failure, Fault, Workspace, clear_error, pick, run
from tests.fuzz.stores import BOMB
from training import classify, select_epoch
from utils import config as settings

Draw = np.random.Generator
COMMANDS = (
    classify.ClassifyConfig, simclr_trainer.SimCLRConfig, vicreg_trainer.VICRegConfig,
    align_trainer.AlignConfig,
    select_epoch.EpochSelectionConfig, ExtractConfig, export.ExportConfig,
    samples.SamplesConfig, SyntheticConfig, tables.Table, tables.Summary,
)  # fmt: skip
WORDS = (
    "", "nan", "NaN", "inf", "-inf", "1e309", "-1e309", "-1", "0", "1", "2", "7", "0.5", "1.5", "1e-3", "1e3",
    "99999999999999999999", "None", "null", "true", "True", "é", "0x10", "1_000", "٣", " 1", "1 ", "1,2",
    "[]", "../x", "/", "a b", "'", "--", "$(touch x)", "`x`", "%s", "{}", "x" * 5000,
)  # fmt: skip
YAML_VALUES = (
    ".nan", ".inf", "-.inf", "1e309", "-1", "0", "1", "0.5", "1e-3", "'1'", "'x'", "true", "null", "[]",
    "[1, 2]", "{}", "{a: 1}", "2020-01-01", "2020-01-01 10:00:00", "0x10", "0o17", "1_000", "12:30:45",
    "!!binary aGk=",
    "99999999999999999999999", "'é'", "!!set {a}", "~", "<<", "'..'", "!!float 1", "!!int '7'",
)  # fmt: skip


class Recorder:
    """Takes the place of a command, and keeps the settings that the command would have run with."""

    def __init__(self) -> None:
        self.settings: object = None

    def __call__(self, parsed: object) -> None:
        self.settings = parsed


def leaves(cls: type, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return the type of each setting, nested ones too, by its path."""
    types_by_path: dict[tuple[str, ...], object] = {}
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        path, kind = (*prefix, field.name), hints[field.name]
        types_by_path |= leaves(kind, path) if dataclasses.is_dataclass(kind) else {path: kind}
    return types_by_path


def setting(parsed: object, path: tuple[str, ...]) -> object:
    """Return a setting by its path."""
    for name in path:
        parsed = getattr(parsed, name)
    return parsed


def meanings(kind: object, word: str) -> list[object]:
    """Return what a word may mean as a value of a type; nothing if it cannot be one."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [value for option in options for value in meanings(option, word)]
    if origin is Literal:
        return [option for option in options if str(option) == word]
    if origin is tuple:
        return [tuple(meanings(options[0], word)[:1])] if meanings(options[0], word) else []
    if kind is type(None):
        return [None] if word == "None" else []
    if kind is bool:
        return [{"True": True, "False": False}[word]] if word in ("True", "False") else []
    try:
        value = kind(word)
    except ValueError:
        return []
    return [] if isinstance(value, float) and not math.isfinite(value) else [value]


def required(cls: type) -> list[str]:
    """Return the required flags of a command, with values; --mimic_iv is, unless there is --meds."""
    values = {"mimic_iv": "raw", "out": "new", "task": "phenotyping", "store": "store"}
    missing = dataclasses.MISSING
    names = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name == "mimic_iv" or (field.default is missing and field.default_factory is missing)
    ]
    return [word for name in names if name in values for word in (f"--{name}", values[name])]


def check(done: CommandResult, right: bool, named: list[str], written: str) -> str:
    """Return CORRECT if what was parsed is what was written; else check that the error is clear."""
    if done.status == 0:
        if not right:
            raise Failure(f"{written} was parsed as something else")
        return CORRECT
    done = dataclasses.replace(done, errors=done.errors.replace("-", "_"))  # --a-b is --a_b
    return clear_error(done, [name.replace("-", "_") for name in named])


def odd_value(draw: Draw, workspace: Workspace) -> str:
    """Pass a value that a flag can or cannot have."""
    cls = pick(draw, COMMANDS)
    paths = [path for path, kind in leaves(cls).items() if kind is not bool]
    path = pick(draw, paths)
    word = pick(draw, WORDS)
    flag = f"--{path[-1]}"
    words = [f"{flag}={word}"] if draw.integers(2) else [flag, word]
    recorder = Recorder()
    done = run(recorder, cls, *required(cls), *words)
    right = done.status == 0 and setting(recorder.settings, path) in meanings(leaves(cls)[path], word)
    return check(done, right, [flag], f"{cls.__name__} {words}")


def odd_flag(draw: Draw, workspace: Workspace) -> str:
    """Pass a misspelt flag, which must never be taken for another."""
    cls = pick(draw, COMMANDS)
    name = pick(draw, list(leaves(cls)))[-1]
    at, dashed = int(draw.integers(len(name))), name.replace("_", "-")
    misspelt = (name[:at] + name[at + 1 :], name[: at + 1] + name[at:], name + "s", name.upper(), name[:-1])
    words = (
        f"--{pick(draw, misspelt)}",
        f"-{name}",
        f"\u2014{name}",
        f"--{dashed}_",
        "--",
        "-",
        "extra",
        "--=1",
    )
    word = pick(draw, words)
    known = [flag for path in leaves(cls) for flag in (f"--{path[-1]}", f"--no_{path[-1]}")]
    if word.replace("-", "_").replace("__", "--", 1) in [*known, "--config", "--help"]:
        word = "--no_such_flag"
    done = run(Recorder(), cls, *required(cls), word, "1")
    return check(done, False, [word.partition("=")[0]], f"{cls.__name__} {word} 1")


def no_value(draw: Draw, workspace: Workspace) -> str:
    """Pass a flag without its value at the end of the line."""
    cls = pick(draw, COMMANDS)
    paths = [path for path, kind in leaves(cls).items() if kind is not bool and get_origin(kind) is not tuple]
    path = pick(draw, paths)
    done = run(Recorder(), cls, *required(cls), f"--{path[-1]}")
    return check(done, False, [path[-1]], f"{cls.__name__} --{path[-1]}")


def twice(draw: Draw, workspace: Workspace) -> str:
    """Pass a flag twice; the last one wins."""
    cls, recorder = classify.ClassifyConfig, Recorder()
    first, last = draw.integers(1, 1000, 2)
    flag = pick(draw, ("--epochs", "--batch-size", "--batch_size", "--seed"))
    done = run(recorder, cls, flag, first, f"{flag.replace('_', '-')}={last}")
    path = next(path for path in leaves(cls) if path[-1] == flag.lstrip("-").replace("-", "_"))
    right = done.status == 0 and setting(recorder.settings, path) == last
    return check(done, right, [flag], f"{flag} {first}, then {last}")


def no_config_file(draw: Draw, workspace: Workspace) -> str:
    """Pass a --config that is not a file."""
    (workspace.folder / "folder").mkdir()
    path = pick(draw, (workspace.folder / "none.yaml", workspace.folder / "folder", "", "/dev/null/x"))
    done = run(Recorder(), classify.ClassifyConfig, *pick(draw, ((f"--config={path}",), ("--config", path))))
    return check(done, False, ["--config"], f"--config {path}")


def agrees(written: object, parsed: object) -> bool:
    """Return whether the settings have the values of the YAML, where it has any."""
    if isinstance(written, Mapping):
        return isinstance(parsed, dict) and all(
            agrees(value, parsed.get(key)) for key, value in written.items()
        )
    if isinstance(written, list):
        return isinstance(parsed, list) and len(written) == len(parsed) and all(map(agrees, written, parsed))
    if isinstance(parsed, float):
        return math.isfinite(parsed) and float(written) == parsed
    return str(written) == str(parsed) if isinstance(parsed, str) else written == parsed


def parse_file(content: bytes, workspace: Workspace, cls: type) -> str:
    """Read settings from a file with this content."""
    path, recorder = workspace.folder / "config.yaml", Recorder()
    path.write_bytes(content)
    done = run(recorder, cls, "--config", path, *required(cls))
    right = done.status == 0 and agrees(yaml.safe_load(content) or {}, settings.to_dict(recorder.settings))
    return check(done, right, [path.name], repr(content[:300]))


def valid_file(cls: type) -> str:
    """Return a config.yaml as a run writes it."""
    recorder = Recorder()
    done = run(recorder, cls, *required(cls))
    if done.status:
        raise Failure(f"the valid flags are refused: {done.errors}")
    return yaml.safe_dump(settings.to_dict(recorder.settings), sort_keys=False)


def odd_entry(draw: Draw, workspace: Workspace) -> str:
    """Write a YAML value that a setting can or cannot have."""
    cls = pick(draw, COMMANDS[:5])
    lines = valid_file(cls).splitlines()
    at = int(draw.integers(len(lines)))
    lines[at] = lines[at].partition(":")[0] + ": " + pick(draw, YAML_VALUES)
    return parse_file("\n".join(lines).encode(), workspace, cls)


def odd_bytes(draw: Draw, workspace: Workspace) -> str:
    """Change some bytes of a config.yaml."""
    content = bytearray(valid_file(classify.ClassifyConfig).encode())
    for _ in range(draw.integers(1, 5)):
        at = int(draw.integers(len(content)))
        content[at : at + int(draw.integers(2))] = pick(
            draw, (b"\0", b"\t", b":", b"\xff", b"-", b"&a ", b"*a ", b"{", b"'", b"\r\n", b"%", b"@")
        )
    return parse_file(bytes(content), workspace, classify.ClassifyConfig)


def odd_file(draw: Draw, workspace: Workspace) -> str:
    """Write a file that holds no settings, or the same settings in another way."""
    text = valid_file(classify.ClassifyConfig)
    contents = (b"", b"\n", b"---\n", b"- 1\n", b"text", b"7", b"\0", draw.bytes(200), text.encode("utf-16"),
           ("\ufeff" + text).encode(), text.replace("\n", "\r\n").encode(), b"x: " + b"[" * 20_000,
           ("%YAML 1.2\n---\n" + text).encode(), (text + "---\n" + text).encode(), BOMB.encode(),
           (BOMB + "optim: *j\n").encode(), (BOMB + "task: *j\n").encode(),
           b"a: &a\n  b: *a\noptim: *a\n")  # fmt: skip
    return parse_file(pick(draw, contents), workspace, classify.ClassifyConfig)


def key_twice(draw: Draw, workspace: Workspace) -> str:
    """Write a key with two values, of which neither may win."""
    text = valid_file(classify.ClassifyConfig)
    more = pick(
        draw, ("protocol: finetune\n", "optim: {epochs: 7}\n", "run: {seed: 3}\n", "task: readmission\n")
    )
    path = workspace.folder / "config.yaml"
    path.write_text(more + text)
    done = run(Recorder(), classify.ClassifyConfig, "--config", path)
    return check(done, False, [path.name], more)


def runs_code(draw: Draw, workspace: Workspace) -> str:
    """Write YAML that would run a command."""
    tag = pick(draw, ("object/apply:os.system", "object/new:os.system", "object/apply:subprocess.call"))
    line = pick(draw, ("task: {}\n", "optim: {}\n", "optim:\n  lr: {}\n", "? {}\n: 1\n", "x: {}\n"))
    path = workspace.folder / "config.yaml"
    path.write_text(line.format(f"!!python/{tag} ['touch {workspace.marker}']"))
    done = run(Recorder(), classify.ClassifyConfig, "--config", path)
    return check(done, False, [path.name], path.read_text())


FLAGS = {"odd value": odd_value, "odd flag": odd_flag, "no value": no_value, "flag twice": twice,
         "--config without file": no_config_file}  # fmt: skip
FILES = {"odd entry": odd_entry, "odd bytes": odd_bytes, "odd file": odd_file, "key twice": key_twice,
         "runs code": runs_code}  # fmt: skip


def faults() -> list[Fault]:
    """Return all kinds of faulty settings."""
    flags = [Fault("flags", name, attempt) for name, attempt in FLAGS.items()]
    return flags + [Fault("YAML", name, attempt) for name, attempt in FILES.items()]
