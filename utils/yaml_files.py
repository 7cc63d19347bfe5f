"""YAML files: read and written by libyaml where PyYAML has it, which takes a tenth of the time."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

MAX_BRACKETS, MAX_INDENT = 1000, 200  # in files for libyaml, which nests calls without Python's limit

SHORT = reprlib.Repr()  # for messages: a few YAML aliases can nest lists almost without end
SHORT.maxlevel = 1


class _UniqueKeys:
    """Part of a loader for which a key with two values is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]} is given twice; keep one", node.start_mark
            )
        mapping: dict[object, object] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return mapping


class _SafeLoader(_UniqueKeys, yaml.SafeLoader):  # type: ignore[misc]  # yaml brings no types
    """YAML's safe loader, in Python: slow, and safe with files that nest deeply."""


class _FastLoader(_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same with libyaml's parser, if it is there."""


def load_yaml(text: str | bytes, source: str) -> object:
    """Parse YAML safely; empty text is {}.

    Raises:
        ValueError: Prefixed with `source`, for invalid YAML, object tags or duplicate keys.
    """
    try:
        return yaml.load(text, Loader=_FastLoader if _is_shallow(text) else _SafeLoader) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{source}: not valid YAML: {error}") from None
    except RecursionError:
        raise ValueError(f"{source}: not valid YAML: it is nested too deeply") from None


def read_yaml_mapping(path: Path) -> dict[str, object]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ValueError: With the path, if it is not.
    """
    mapping = load_yaml(path.read_bytes(), str(path))
    if not isinstance(mapping, dict):
        raise ValueError(f"{path} must hold keys, not {SHORT.repr(mapping)}; copy it again")
    return mapping


def dump_yaml(content: Mapping[str, object] | Sequence[object], allow_unicode: bool = True) -> str:
    """Return plain content as YAML, its keys in their order.

    >>> print(dump_yaml({"task": "readmission", "seeds": [0, 1]}), end="")
    task: readmission
    seeds:
    - 0
    - 1
    """
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=allow_unicode)
    return text


def _is_shallow(text: str | bytes) -> bool:
    """Return whether text cannot nest deeply: two levels need at least a bracket, or a column of indent.

    >>> _is_shallow("- a: [0]"), _is_shallow("[" * 20_000), _is_shallow("- " * 20_000)
    (True, False, False)
    """
    data = text.encode() if isinstance(text, str) else text
    brackets = data.count(b"[") + data.count(b"{")
    is_utf16 = b"\0" in data
    return brackets <= MAX_BRACKETS and not is_utf16 and not re.search(rb"(?m)^[-?: ]{%d}" % MAX_INDENT, data)
