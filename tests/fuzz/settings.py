"""Faulty flags and YAML: what is parsed is what was written, or the flag or the file is named."""

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
from datasets import export, extract
from datasets.synthetic import release as synthetic
from evaluation import tables
from tests.fuzz.cases import CORRECT, Ended, Failure, Fault, Place, clear_error, pick, run
from tests.fuzz.stores import BOMB
from training import classify, select_epoch
from utils import config as settings

Draw = np.random.Generator
COMMANDS = (
    classify.ClassifyConfig, simclr_trainer.SimCLRConfig, vicreg_trainer.VICRegConfig,
    align_trainer.AlignConfig,
    select_epoch.EpochEvaluationConfig, extract.ExtractConfig, export.ExportConfig,
    synthetic.SyntheticConfig, tables.Table, tables.Summary,
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


class Caught:
    """Stands for a command: keeps the settings that it would have run with."""

    def __init__(self) -> None:
        self.settings: object = None

    def __call__(self, parsed: object) -> None:
        self.settings = parsed


def leaves(cls: type, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Path of each setting, nested ones too, and its type."""
    found: dict[tuple[str, ...], object] = {}
    for name, kind in get_type_hints(cls).items():
        if name in {field.name for field in dataclasses.fields(cls)}:
            nested = dataclasses.is_dataclass(kind)
            found |= leaves(kind, (*place, name)) if nested else {(*place, name): kind}
    return found


def setting(parsed: object, way: tuple[str, ...]) -> object:
    """A setting, by its path."""
    for name in way:
        parsed = getattr(parsed, name)
    return parsed


def means(kind: object, word: str) -> list[object]:
    """What a word may mean as a value of some type; nothing if it cannot be one."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [value for option in options for value in means(option, word)]
    if origin is Literal:
        return [option for option in options if str(option) == word]
    if origin is tuple:
        return [tuple(means(options[0], word)[:1])] if means(options[0], word) else []
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
    """Flags that a command cannot do without."""
    told = {"mimic_iv": "raw", "out": "new", "task": "phenotyping", "store": "store"}
    missing = dataclasses.MISSING
    fields = [
        f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing
    ]
    return [word for name in fields if name in told for word in (f"--{name}", told[name])]


def judged(ended: Ended, right: bool, named: list[str], what: str) -> str:
    """CORRECT if what was parsed is what was written; else it is held to `clear_error`."""
    if ended.status == 0:
        if not right:
            raise Failure(f"{what} was taken for something else")
        return CORRECT
    told = dataclasses.replace(ended, errors=ended.errors.replace("-", "_"))  # --a-b is --a_b
    return clear_error(told, [name.replace("-", "_") for name in named])


def odd_value(draw: Draw, place: Place) -> str:
    """A value that a flag can or cannot have."""
    cls = pick(draw, COMMANDS)
    ways = [way for way, kind in leaves(cls).items() if kind is not bool]
    way, word, caught = pick(draw, ways), pick(draw, WORDS), Caught()
    flag = f"--{way[-1]}"
    given = [f"{flag}={word}"] if draw.integers(2) else [flag, word]
    ended = run(caught, cls, *required(cls), *given)
    right = ended.status == 0 and setting(caught.settings, way) in means(leaves(cls)[way], word)
    return judged(ended, right, [flag], f"{cls.__name__} {given}")


def odd_flag(draw: Draw, place: Place) -> str:
    """A flag that is not quite one: it is never taken for another."""
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
    word, caught = pick(draw, words), Caught()
    known = [part for way in leaves(cls) for part in (f"--{way[-1]}", f"--no_{way[-1]}")]
    if word.replace("-", "_").replace("__", "--", 1) in [*known, "--config", "--help"]:
        word = "--no_such_flag"
    ended = run(caught, cls, *required(cls), word, "1")
    return judged(ended, False, [word.partition("=")[0]], f"{cls.__name__} {word} 1")


def no_value(draw: Draw, place: Place) -> str:
    """A flag at the end of the line, without its value."""
    cls = pick(draw, COMMANDS)
    ways = [way for way, kind in leaves(cls).items() if kind is not bool and get_origin(kind) is not tuple]
    way, caught = pick(draw, ways), Caught()
    ended = run(caught, cls, *required(cls), f"--{way[-1]}")
    return judged(ended, False, [way[-1]], f"{cls.__name__} --{way[-1]}")


def twice(draw: Draw, place: Place) -> str:
    """A flag that is given twice: the last wins."""
    cls, caught = classify.ClassifyConfig, Caught()
    first, last = draw.integers(1, 1000, 2)
    flag = pick(draw, ("--epochs", "--batch-size", "--batch_size", "--seed"))
    ended = run(caught, cls, flag, first, f"{flag.replace('_', '-')}={last}")
    way = next(way for way in leaves(cls) if way[-1] == flag.lstrip("-").replace("-", "_"))
    right = ended.status == 0 and setting(caught.settings, way) == last
    return judged(ended, right, [flag], f"{flag} {first}, then {last}")


def no_config_file(draw: Draw, place: Place) -> str:
    """A --config that is no file."""
    (place.folder / "folder").mkdir()
    path = pick(draw, (place.folder / "none.yaml", place.folder / "folder", "", "/dev/null/x"))
    ended = run(Caught(), classify.ClassifyConfig, *pick(draw, ((f"--config={path}",), ("--config", path))))
    return judged(ended, False, ["--config"], f"--config {path}")


def agrees(written: object, parsed: object) -> bool:
    """Do settings say what YAML does, where it says something?"""
    if isinstance(written, Mapping):
        return isinstance(parsed, dict) and all(
            agrees(value, parsed.get(key)) for key, value in written.items()
        )
    if isinstance(written, list):
        return isinstance(parsed, list) and len(written) == len(parsed) and all(map(agrees, written, parsed))
    if isinstance(parsed, float):
        return math.isfinite(parsed) and float(written) == parsed
    return str(written) == str(parsed) if isinstance(parsed, str) else written == parsed


def parse_file(content: bytes, place: Place, cls: type) -> str:
    """Read settings from a file."""
    path, caught = place.folder / "config.yaml", Caught()
    path.write_bytes(content)
    ended = run(caught, cls, "--config", path, *required(cls))
    right = ended.status == 0 and agrees(yaml.safe_load(content) or {}, settings.to_dict(caught.settings))
    return judged(ended, right, [path.name], repr(content[:300]))


def whole_file(cls: type) -> str:
    """A config.yaml as a run writes it."""
    caught = Caught()
    if (ended := run(caught, cls, *required(cls))).status:
        raise Failure(f"the clean flags are refused: {ended.errors}")
    return settings.to_yaml(caught.settings)


def odd_entry(draw: Draw, place: Place) -> str:
    """A YAML value that a setting can or cannot have."""
    cls = pick(draw, COMMANDS[:5])
    lines = whole_file(cls).splitlines()
    at = int(draw.integers(len(lines)))
    lines[at] = lines[at].partition(":")[0] + ": " + pick(draw, YAML_VALUES)
    return parse_file("\n".join(lines).encode(), place, cls)


def odd_bytes(draw: Draw, place: Place) -> str:
    """A config.yaml with some bytes changed."""
    content = bytearray(whole_file(classify.ClassifyConfig).encode())
    for _ in range(draw.integers(1, 5)):
        at = int(draw.integers(len(content)))
        content[at : at + int(draw.integers(2))] = pick(
            draw, (b"\0", b"\t", b":", b"\xff", b"-", b"&a ", b"*a ", b"{", b"'", b"\r\n", b"%", b"@")
        )
    return parse_file(bytes(content), place, classify.ClassifyConfig)


def odd_file(draw: Draw, place: Place) -> str:
    """A file that is no settings at all, or says the same in another way."""
    text = whole_file(classify.ClassifyConfig)
    odd = (b"", b"\n", b"---\n", b"- 1\n", b"text", b"7", b"\0", draw.bytes(200), text.encode("utf-16"),
           ("\ufeff" + text).encode(), text.replace("\n", "\r\n").encode(), b"x: " + b"[" * 20_000,
           ("%YAML 1.2\n---\n" + text).encode(), (text + "---\n" + text).encode(), BOMB.encode(),
           (BOMB + "optim: *j\n").encode(), (BOMB + "task: *j\n").encode(),
           b"a: &a\n  b: *a\noptim: *a\n")  # fmt: skip
    return parse_file(pick(draw, odd), place, classify.ClassifyConfig)


def key_twice(draw: Draw, place: Place) -> str:
    """A key with two values: neither is the right one."""
    text = whole_file(classify.ClassifyConfig)
    more = pick(
        draw, ("protocol: finetune\n", "optim: {epochs: 7}\n", "run: {seed: 3}\n", "task: readmission\n")
    )
    path = place.folder / "config.yaml"
    path.write_text(more + text)
    ended = run(Caught(), classify.ClassifyConfig, "--config", path)
    return judged(ended, False, [path.name], more)


def runs_code(draw: Draw, place: Place) -> str:
    """YAML that would run a command."""
    tag = pick(draw, ("object/apply:os.system", "object/new:os.system", "object/apply:subprocess.call"))
    line = pick(draw, ("task: {}\n", "optim: {}\n", "optim:\n  lr: {}\n", "? {}\n: 1\n", "x: {}\n"))
    path = place.folder / "config.yaml"
    path.write_text(line.format(f"!!python/{tag} ['touch {place.marker}']"))
    return judged(
        run(Caught(), classify.ClassifyConfig, "--config", path), False, [path.name], path.read_text()
    )


FLAGS = {"odd value": odd_value, "odd flag": odd_flag, "no value": no_value, "flag twice": twice,
         "--config without file": no_config_file}  # fmt: skip
FILES = {"odd entry": odd_entry, "odd bytes": odd_bytes, "odd file": odd_file, "key twice": key_twice,
         "runs code": runs_code}  # fmt: skip


def faults() -> list[Fault]:
    """All kinds of faulty settings."""
    made = [Fault("flags", name, attempt) for name, attempt in FLAGS.items()]
    return made + [Fault("YAML", name, attempt) for name, attempt in FILES.items()]
