"""Settings: frozen dataclasses that become flags with help, and YAML that repeats a run."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import reprlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro
import yaml

T = TypeVar("T")

CONFIG_HELP = "--config FILE reads a config.yaml, such as the one every run writes; flags win over the file."


def parse(cls: type[T], argv: Sequence[str] | None = None, description: str = "") -> T:
    """The settings that a command line asks for.

    Nested dataclasses become flat flags, and `--a_b` is `--a-b`. The last of two equal flags wins.
    `--config FILE` reads defaults from YAML. A flag, key or value that is not right prints one error, with
    the nearest right name, and exits with status 2.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Data:
    ...     batch_size: int = 256
    >>> parse(Data, ["--batch-size", "16"])
    Data(batch_size=16)
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        files, argv = _take_config(argv)
        _check_flags(cls, argv)
        missing = tyro.MISSING_NONPROP
        default = _build(cls, _read(files[-1]), files[-1], missing) if files else missing
    except (ValueError, OSError) as error:
        _leave(str(error))
    if {"-h", "--help"} & set(argv):
        _unwrap_docstrings(cls)
    settings = tyro.cli(
        cls,
        prog=_program(),
        args=argv,
        default=default,
        description=f"{description}\n{CONFIG_HELP}".strip(),
        config=(tyro.conf.OmitArgPrefixes,),
        use_underscores=True,
        console_outputs=_speaks(),
    )
    for name, value in _leaves(settings):
        if not _is_settled(value):
            _leave(f"--{name} {value}: a setting is a finite number")
    return settings


def to_dict(config: object) -> dict[str, object]:
    """A config as nested dicts of YAML's and checkpoints' plain types; paths become text, tuples lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in _fields(type(config))}


def from_dict(cls: type[T], values: Mapping[str, object], source: str = "config") -> T:
    """The inverse of `plain`; keys left out keep their defaults.

    ValueError, beginning with `source`, for a key or value that does not fit, with the nearest right name.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Data:
    ...     batch_size: int = 256
    ...     ratio: float = 1.0
    >>> build(Data, {"ratio": 0.5})
    Data(batch_size=256, ratio=0.5)
    """
    return _build(cls, values, source, None)


def to_yaml(config: object) -> str:
    """A config as YAML, nested as its dataclasses are, in their order."""
    text: str = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    return text


def from_yaml(cls: type[T], text: str, source: str = "config") -> T:
    """The inverse of `to_yaml`; keys left out keep their defaults. ValueError if the text does not fit `cls`.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Data:
    ...     batch_size: int = 256
    >>> from_yaml(Data, "batch_sise: 3")
    Traceback (most recent call last):
    ...
    ValueError: config: unknown key batch_sise; the nearest right one is batch_size
    """
    return _build(cls, load_yaml(text, source), source, None)


def load_yaml(text: str | bytes, source: str) -> object:
    """What YAML says, {} if it is empty. ValueError, beginning with `source`, if it is none, holds objects,
    or a key twice.
    """
    try:
        return yaml.load(text, Loader=_SafeLoader) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{source}: not YAML: {error}") from None
    except RecursionError:
        raise ValueError(f"{source}: not YAML of settings: it is nested too deeply") from None


def read_yaml_mapping(path: Path) -> dict[str, object]:
    """What a YAML file beside a run or a table says of it. ValueError, with the path, if it is no mapping."""
    told = load_yaml(path.read_bytes(), str(path))
    if not isinstance(told, dict):
        raise ValueError(f"{path} must hold keys, not {_SHORT.repr(told)}; copy it again")
    return told


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """What to add to "unknown ...": the known name most like `name`, or all of a few.

    >>> nearest("--lrr", ["--lr", "--seed"])
    '; the nearest right one is --lr'
    """
    close = difflib.get_close_matches(name, known, 1, 0.4)
    if close:
        return f"; the nearest right one is {close[0]}"
    return f"; the right ones are {', '.join(known)}" if len(known) <= 12 else ""


def _fields(cls: type) -> tuple[dataclasses.Field[object], ...]:
    assert dataclasses.is_dataclass(cls), f"{cls} is no dataclass"
    return dataclasses.fields(cls)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a config holds numbers, text, paths and tuples of them, not {type(value).__name__}")


def _build(cls: type[T], values: object, source: str, missing: object) -> T:
    try:
        return _fill(cls, values, "", None, missing)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _fill(cls: type[T], values: object, place: str, base: object, missing: object) -> T:
    """A dataclass from a mapping; fields left out are those of `base`, or the defaults.

    `missing` stands for a required field that is left out; if it is None, that is an error.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{place.rstrip('.') or 'the file'} must hold keys, not {_SHORT.repr(values)}")
    hints, given = get_type_hints(cls), {}
    _check_keys(cls, values, place)
    for field in _fields(cls):
        default = getattr(base, field.name, _default(field))
        if field.name in values:
            where = f"{place}{field.name}"
            given[field.name] = _convert(hints[field.name], values[field.name], where, default, missing)
        elif default is not dataclasses.MISSING:
            given[field.name] = default
        elif missing is not None:
            given[field.name] = missing
        else:
            raise ValueError(f"{place}{field.name} is required and missing")
    return cls(**given)


def _default(field: dataclasses.Field[object]) -> object:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _check_keys(cls: type, values: Mapping[str, object], place: str) -> None:
    known = {field.name: f"{place}{field.name}" for field in _fields(cls)}
    for key in values:
        if key not in known:
            deeper = [f"{place}{path}" for path in _paths(cls) if path.rpartition(".")[2] == key]
            hint = did_you_mean(f"{place}{key}", deeper or list(known.values()))
            raise ValueError(f"unknown key {place}{key}{hint}")


def _is_config(kind: object) -> TypeGuard[type]:
    """True for the type of nested settings."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _convert(kind: object, value: object, where: str, default: object, missing: object) -> object:
    """`value` as the type of one field; ValueError if it does not fit."""
    origin, options = get_origin(kind), get_args(kind)
    if _is_config(kind):
        return _fill(kind, value, f"{where}.", default, missing)
    if origin in (Union, types.UnionType):
        return _first_fit(options, value, where, default, missing)
    if origin is Literal and value in options:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = options[:1] * len(value) if options[-1] is Ellipsis else options
        if len(kinds) == len(value):
            return tuple(_convert(k, v, where, None, missing) for k, v in zip(kinds, value, strict=True))
    if kind in _SCALARS and _SCALARS[kind](value):
        with suppress(ValueError, OverflowError):
            scalar = kind(value) if value is not None else None
            if _is_settled(scalar):
                return scalar
    named = "a finite number" if kind is float else getattr(kind, "__name__", kind)
    wanted = " or ".join(map(str, options)) if origin is Literal else named
    raise ValueError(f"{where} must be {wanted}, not {_SHORT.repr(value)}")


def _is_settled(value: object) -> bool:
    """False for NaN and infinity, which no setting can be."""
    return not isinstance(value, float) or math.isfinite(value)


# A value in a message: a few aliases of YAML can nest lists without end.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


# What YAML may hold for each type; text counts as a number because YAML 1.1 reads 1e-3 as text.
_SCALARS = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool),
    float: lambda value: isinstance(value, int | float | str) and not isinstance(value, bool),
    str: lambda value: isinstance(value, int | float | str) and not isinstance(value, bool),
    Path: lambda value: isinstance(value, str),
    type(None): lambda value: value is None,
}


def _first_fit(
    options: Sequence[object], value: object, where: str, default: object, missing: object
) -> object:
    for option in options:
        try:
            return _convert(option, value, where, default, missing)
        except ValueError as error:
            last = error
    raise last


def _paths(cls: type, place: str = "") -> Iterator[str]:
    """Dotted names of all fields, nested ones too."""
    hints = get_type_hints(cls)
    for field in _fields(cls):
        if _is_config(hints[field.name]):
            yield from _paths(hints[field.name], f"{place}{field.name}.")
        else:
            yield f"{place}{field.name}"


def _leaves(config: object) -> Iterator[tuple[str, object]]:
    """Name and value of all settings, nested ones too, and of each part of a tuple."""
    for field in _fields(type(config)):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value)
        else:
            yield from ((field.name, part) for part in (value if isinstance(value, tuple) else (value,)))


def _flags(cls: type) -> list[str]:
    """Flags of a config, without dashes; ValueError if two nested settings share a name."""
    hints, names = get_type_hints(cls), []
    for field in _fields(cls):
        kind = hints[field.name]
        names += _flags(kind) if _is_config(kind) else [field.name]
        names += [f"no_{field.name}"] if kind is bool else []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{cls.__name__}: two settings are called {twice[0]}; flags are flat, rename one")
    return names


def _check_flags(cls: type, argv: Sequence[str]) -> None:
    known = [*_flags(cls), "help", "config"]
    for word in argv:
        name = word[2:].partition("=")[0].replace("-", "_")
        if word.startswith("--") and name not in known:
            raise ValueError(
                f"unknown flag --{name}{did_you_mean(f'--{name}', [f'--{flag}' for flag in known])}"
            )


def _unwrap_docstrings(cls: type) -> None:
    """Turns the fields' docstrings into running text, where tyro would keep the line breaks of the source."""
    for part in filter(dataclasses.is_dataclass, cls.__mro__):
        parameters = docstring_parser.parse_from_object(part).params
        told = {parameter.arg_name: parameter.description or "" for parameter in parameters}
        for field in dataclasses.fields(part):
            if field.name in told:
                field.metadata = types.MappingProxyType({"help": " ".join(told[field.name].split())})
    for kind in get_type_hints(cls).values():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            _unwrap_docstrings(kind)


def _take_config(argv: list[str]) -> tuple[list[str], list[str]]:
    """Splits `--config FILE` and `--config=FILE` from the other words."""
    files, rest, words = [], [], iter(argv)
    for word in words:
        if word == "--config":
            files.append(next(words, ""))
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    if "" in files:
        raise ValueError("--config needs a file, for example --config runs/mine/config.yaml")
    return files, rest


def _read(path: str) -> object:
    if not Path(path).is_file():
        raise ValueError(f"--config {path}: there is no such file")
    return load_yaml(Path(path).read_bytes(), path)


class _SafeLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml brings no types
    """YAML's safe loader, to which a key with two values is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        """As the safe loader does."""
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]} stands there twice; keep one", node.start_mark
            )
        mapping: dict[object, object] = super().construct_mapping(node, deep)
        return mapping


def _program() -> str:
    """What was typed to start this program, after `python` where it is a file."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {module.name}" if module else Path(sys.argv[0]).name


def _speaks() -> bool:
    """True on the one process that prints, under torchrun too."""
    return os.environ.get("RANK", "0") == "0"


def _leave(message: str) -> None:
    if _speaks():
        print(f"error: {message}\nAll flags: {_program()} --help", file=sys.stderr)
    raise SystemExit(2)
