"""docs/reliability.md promises nothing without the test that holds it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
TABLES = [block.splitlines() for block in PAGE.split("\n\n") if "held by |" in block.split("\n")[0]]
PROMISES = [line for head, rule, *lines in TABLES for line in lines]


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED.findall(PAGE)}))
def test_every_test_that_the_page_names_is_there(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for of, name in NAMED.findall(PAGE) if of == file} <= there


@pytest.mark.parametrize("line", PROMISES, ids=lambda line: line.split("|")[1].strip())
def test_every_promise_names_a_test(line: str) -> None:
    assert NAMED.search(line) or "`make faults`" in line
