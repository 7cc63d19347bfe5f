"""Settings: frozen dataclasses that become command-line flags, and YAML files that repeat a run."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import hashlib
import json
import math
import operator
import os
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast, get_args, get_type_hints

import docstring_parser
import tyro

from utils.log import is_rank_zero
from utils.yaml_files import SHORT, load_yaml

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

CONFIG_HELP = "--config FILE reads a config.yaml, such as the one that every run writes; flags override it."


def parse(cls: type[T], argv: Sequence[str] | None = None, description: str = "") -> T:
    """Parse the command line into a config; a union of configs makes each of them a subcommand.

    Nested dataclasses become flat flags; `--a_b` and `--a-b` are the same; the last of two equal flags wins.
    `--config FILE` reads defaults from YAML. A wrong flag, key or value exits with status 2 and one error.
    """
    config_flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    config_flag.add_argument("--config", metavar="FILE")
    default: Any = tyro.MISSING_NONPROP
    try:
        known, words = config_flag.parse_known_args(argv)
        kind = next((part for part in get_args(cls) if part.__name__.lower() in words), cls)  # subcommand
        if known.config is not None and isinstance(kind, type):
            default = from_dict(kind, _read_config(known.config), known.config, required=default)
    except (argparse.ArgumentError, ValueError) as error:
        _exit_usage(str(error))
    if {"-h", "--help"} & set(words):
        _unwrap_help_texts(cast(Any, cls))  # mypy takes a type for unhashable
    config: T
    config, unknown = tyro.cli(
        cls,
        prog=_program(),
        args=words,
        default=default,
        description=f"{description}\n{CONFIG_HELP}".strip(),
        config=(tyro.conf.OmitArgPrefixes,),
        use_underscores=True,
        console_outputs=is_rank_zero(),
        return_unknown_args=True,
    )
    _check_parsed(config, unknown)
    return config


def _check_parsed(config: object, unknown: Sequence[str]) -> None:
    """Exit for an unknown flag, which tyro would explain in a dozen lines, or a number that is not finite."""
    values = {path: operator.attrgetter(path)(config) for path, _ in _settings(type(config))}
    if unknown:
        name = unknown[0].partition("=")[0]
        known = ["--config", *map(_flag, values)]
        _exit_usage(f"unknown flag {name}{did_you_mean(name, known, synonyms(type(config)))}")
    for path, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                _exit_usage(f"{_flag(path)} must be a finite number, not {number}")


def resumable(default: T) -> T:
    """Declare a setting, or all settings of a nested config, that may change when a run is resumed."""
    declared: T = dataclasses.field(default=default, metadata={"resumable": True})
    return declared


def neutral(default: T) -> T:
    """Declare a setting that has no influence on the scores of a run, such as a path; it is resumable too."""
    declared: T = dataclasses.field(default=default, metadata={"resumable": True, "neutral": True})
    return declared


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a search tries, ends included; `log`: by their orders of magnitude."""

    low: float
    high: float
    log: bool = False


Choices = tuple[str | int, ...]


def searched(default: T, low: float | None = None, high: float | None = None, log: bool = False) -> T:
    """Declare a setting that `training.search` tries, with the range of its numbers; if a Literal, without.

    The range is for experiments: other values than those in it are allowed.
    """
    tried = None if low is None or high is None else Range(low, high, log)
    declared: T = dataclasses.field(default=default, metadata={"searched": tried})
    return declared


def search_space(kind: type) -> dict[str, Range | Choices]:
    """Return what a search tries of each setting of a config that is declared `searched`, by dotted path."""
    kinds: dict[str, Any] = dict(_settings(kind))
    space: dict[str, Range | Choices] = {}
    for path in kinds:
        *nested, name = path.split(".")
        parent: Any = functools.reduce(lambda cls, part: get_type_hints(cls)[part], nested, kind)
        metadata = next(field.metadata for field in dataclasses.fields(parent) if field.name == name)
        if "searched" in metadata:
            space[path] = metadata["searched"] or get_args(kinds[path])
    return space


def replace_settings(config: T, values: Mapping[str, object]) -> T:
    """Return a config with other values of some settings, by dotted path."""
    for path, value in values.items():
        name, _, rest = path.partition(".")
        inner = replace_settings(getattr(config, name), {rest: value}) if rest else value
        config = dataclasses.replace(cast(Any, config), **{name: inner})
    return config


def to_flags(config: object) -> list[str]:
    """Return the flags that make a config, of those of its settings that are not the default."""
    flags = []
    default = type(config)()
    for path, kind in _settings(type(config)):
        value = operator.attrgetter(path)(config)
        if dataclasses.is_dataclass(kind) or value == operator.attrgetter(path)(default):
            continue
        if isinstance(value, bool):
            flags.append(_flag(path) if value else _flag(path).replace("--", "--no-", 1))
        else:
            flags += [_flag(path), *map(str, value if isinstance(value, tuple) else (value,))]
    return flags


def is_resumable(config: object, path: str) -> bool:
    """Return whether the setting at a dotted path may change when a run is resumed."""
    return _is_declared(config, path, "resumable")


def decisive_settings(config: object) -> dict[str, object]:
    """Return the settings that decide the scores of a run, by dotted path: all that are not neutral."""
    paths = [path for path, kind in _settings(type(config)) if not dataclasses.is_dataclass(kind)]
    values = {path: operator.attrgetter(path)(config) for path in paths}
    plain = json.loads(json.dumps(values, default=os.fspath))
    return {path: plain[path] for path in paths if not _is_declared(config, path, "neutral")}


def digest(settings: Mapping[str, object]) -> str:
    """Return the first 12 digits of the SHA-256 of settings, whatever their order.

    >>> digest({"lr": 0.1, "seed": 0}) == digest({"seed": 0, "lr": 0.1}) != digest({"lr": 0.2, "seed": 0})
    True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _is_declared(config: object, path: str, name: str) -> bool:
    """Return whether a setting, or a config that it is nested in, is declared resumable or neutral."""
    for part in path.split("."):
        field = getattr(config, "__dataclass_fields__", {}).get(part)
        if field is None:
            return False
        if field.metadata.get(name):
            return True
        config = getattr(config, part)
    return False


def to_dict(config: object) -> dict[str, object]:
    """Return a config as nested dicts of plain types; paths become text and tuples become lists."""
    assert dataclasses.is_dataclass(config) and not isinstance(config, type)
    values: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(config), default=os.fspath))
    return values


def from_dict(cls: type[T], values: object, source: str = "config", required: object = None) -> T:
    """Build a config from what `to_dict` returned. Keys that are left out keep their defaults.

    `source` names the values in messages; `required`, if given, replaces required settings that are left out.

    Raises:
        ValueError: Prefixed with `source`, for an unknown key (with the most similar one) or a bad value.
    """
    try:
        config: T = _override(cls, _defaults(cls, required), values, "", [path for path, _ in _settings(cls)])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return config


def synonyms(kind: Any) -> dict[str, str]:
    """Return {flag that others use: flag} of a config: the `synonyms` of its class and of nested configs.

    A class lists its settings' names in other programs where their spelling is too different to be found by
    similarity: `synonyms: ClassVar = {"learning_rate": "lr"}`.
    """
    found = {f"--{other}": f"--{name}" for other, name in getattr(kind, "synonyms", {}).items()}
    if dataclasses.is_dataclass(kind):
        for hint in get_type_hints(kind).values():
            found |= synonyms(hint)
    return found


def did_you_mean(name: str, known: Sequence[str], other_names: Mapping[str, str] | None = None) -> str:
    """Return the end of an "unknown ..." message: the most similar name, or all names if few.

    `other_names` are synonyms of known names, which win over similar names.
    """
    others = {other: known_name for other, known_name in (other_names or {}).items() if known_name in known}
    if same := difflib.get_close_matches(name.replace("-", "_").replace("__", "--", 1), others, 1, 0.85):
        return f"; did you mean {others[same[0]]}?"
    similar = difflib.get_close_matches(name, known, 1, 0.4)
    if similar:
        return f"; did you mean {similar[0]}?"
    return f"; the known ones are {', '.join(known)}" if len(known) <= 12 else ""


def _settings(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and type of each field of a config, or of all configs of a union."""
    for option in get_args(kind):
        yield from _settings(option, prefix)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            yield f"{prefix}{field.name}", hints[field.name]
            yield from _settings(hints[field.name], f"{prefix}{field.name}.")


def _flag(path: str) -> str:
    return f"--{path.rpartition('.')[2]}"


@functools.cache  # reading a class's docstrings parses its whole file
def _unwrap_help_texts(kind: Any) -> None:
    """Join the lines of the docstrings of fields, whose breaks and indents tyro would show in the help."""
    for part in (*get_args(kind), *getattr(kind, "__bases__", ())):
        _unwrap_help_texts(part)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        parameters = docstring_parser.parse_from_object(kind).params
        docstrings = {parameter.arg_name: parameter.description for parameter in parameters}
        for field in dataclasses.fields(kind):
            if text := docstrings.get(field.name):
                field.metadata = types.MappingProxyType({**field.metadata, "help": " ".join(text.split())})
        for hint in get_type_hints(kind).values():
            _unwrap_help_texts(hint)


def _read_config(path: str) -> object:
    try:
        return load_yaml(Path(path).read_bytes(), path)
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror}") from None


def _defaults(cls: Any, required: object = None) -> dict[str, Any]:
    defaults = {}
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif required is not None:
            defaults[field.name] = required
    return defaults


def _override(cls: Any, defaults: dict[str, Any], values: object, prefix: str, known: Sequence[str]) -> Any:
    """Build a config from its defaults and from nested dicts, which win; `known` are all dotted paths."""
    if not isinstance(values, Mapping):
        location = prefix.rstrip(".") or "the file"
        raise ValueError(f"{location} must hold keys, not {SHORT.repr(values)}")
    kinds = get_type_hints(cls)
    settings = dict(defaults)
    for key, value in values.items():
        path = f"{prefix}{key}"
        if path not in known:
            same_name = [name for name in known if name.rpartition(".")[2] == key]
            raise ValueError(f"unknown key {path}{did_you_mean(path, same_name or known)}")
        if dataclasses.is_dataclass(kinds[key]):
            default = defaults.get(key)  # a field may have other defaults than its class
            nested = vars(default) if dataclasses.is_dataclass(default) else _defaults(kinds[key])
            settings[key] = _override(kinds[key], nested, value, f"{path}.", known)
        else:
            settings[key] = _validate(kinds[key], value, path)
    for field in dataclasses.fields(cls):
        if field.name not in settings:
            raise ValueError(f"{prefix}{field.name} is required and missing")
    return cls(**settings)


@functools.cache
def _validator(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True))


def _validate(kind: Any, value: object, path: str) -> object:
    """Return a value as its field's type; only numbers and text (YAML 1.1's 1e-3) are converted."""
    from pydantic import ValidationError  # slow to import, not for --help

    try:
        valid = _validator(kind).validate_python(value)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise ValueError(f"{path} is {SHORT.repr(value)}: {reason[0].lower()}{reason[1:]}") from None
    pairs = [(value, valid)]
    if isinstance(value, list | tuple) and isinstance(valid, tuple):
        pairs = list(zip(value, valid, strict=True))
    for old, new in pairs:
        is_number_or_text = type(old) in (int, float, str) and isinstance(new, float | str | Path)
        if type(old) is not type(new) and not is_number_or_text:
            raise ValueError(f"{path} must be {type(new).__name__}, not {SHORT.repr(old)}")
    return valid


def _program() -> str:
    """Return what was typed to start this program, after `python` if it is a file."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {module.name.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name


def _exit_usage(message: str) -> NoReturn:
    if is_rank_zero():
        print(f"error: {message}\nAll flags: {_program()} --help", file=sys.stderr)
    raise SystemExit(2)
