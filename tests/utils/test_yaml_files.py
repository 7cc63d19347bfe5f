"""YAML is read and written as by PyYAML's own safe loader and dumper, in less time."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from utils.yaml_files import dump_yaml, load_yaml

ROOT = Path(__file__).resolve().parents[2]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text("ab_1é-: "), inner), max_leaves=8
)


def same(one: object, other: object) -> bool:
    """Return whether two plain values are equal, NaN being equal to itself."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@given(st.dictionaries(st.text("ab_1é-: "), PLAIN, min_size=1))
def test_what_is_written_is_read_again(content: dict[str, object]) -> None:
    for allow_unicode in (True, False):
        text = dump_yaml(content, allow_unicode)
        assert same(load_yaml(text, "x"), content) and same(load_yaml(text.encode(), "x"), content)
        assert same(yaml.safe_load(text), content)


def test_the_files_of_this_repository_read_as_by_the_loader_in_python() -> None:
    paths = [*ROOT.glob("*.yml"), *ROOT.glob("datasets/**/*.yaml"), ROOT / "CITATION.cff"]
    assert len(paths) > 3
    for path in paths:
        assert load_yaml(path.read_bytes(), str(path)) == yaml.safe_load(path.read_bytes()), path


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "- " * 20_000, "\n".join(" " * n + "a:" for n in range(1_200))]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_nests_too_deeply_is_one_error(text: str, encoding: str) -> None:
    with pytest.raises(ValueError, match=r"^x: not valid YAML: it is nested too deeply$"):
        load_yaml(text.encode(encoding), "x")


def test_long_and_wide_files_are_no_deep_ones() -> None:
    wide = {"rows": [[number, {"text": "a: [" * 20}] for number in range(2000)], "line": "- " * 500}
    assert load_yaml(dump_yaml(wide), "x") == wide
