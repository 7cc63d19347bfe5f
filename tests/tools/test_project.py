"""The project files agree with each other, and documents are narrow."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def requirements() -> list[str]:
    """Return the pinned packages of requirements.txt."""
    return [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]


def test_the_conda_environment_names_the_pinned_packages_itself() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, packages = environment["dependencies"]
    assert packages["pip"] == requirements()
    assert python == "python=3.11"


def test_the_version_has_a_dated_section_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    sections = re.findall(r"^## (\S+) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == version


def test_no_line_of_a_document_is_longer_than_120_columns() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tasks/*/README.md")]
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in documents
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert documents and not long


def test_documents_name_tests_that_exist() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    named = [
        name for path in documents for name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", path.read_text())
    ]
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not re.search(rf"def {test}\b", (ROOT / path).read_text() if (ROOT / path).is_file() else "")
    ]
    assert len(named) > 100 and not missing
