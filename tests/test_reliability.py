"""Each promise of docs/reliability.md names a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PROMISES = re.findall(r"^- \*\*.*(?:\n  .*)*", PAGE, re.MULTILINE)


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED.findall(PAGE)}))
def test_the_tests_that_the_page_names_exist(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for named_file, name in NAMED.findall(PAGE) if named_file == file} <= defined


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.split("**")[1])
def test_every_promise_names_a_test(promise: str) -> None:
    assert NAMED.search(promise) or "`make faults`" in promise


def test_the_page_makes_promises() -> None:
    assert len(PROMISES) > 40
