"""Other variables than those of the benchmark, for tests: files of a user in place of the repository's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from datasets import schema
from datasets.events import cleaning

FILES = ("channels.yaml", "variables.yaml")
OWN = {"name": "Own", "normal": 1.5}, {"rule": "number", "lab": [999_001], "range": [0, 30]}


def read_files() -> tuple[list, dict]:
    """The content of channels.yaml and variables.yaml."""
    channels, variables = (yaml.safe_load((schema.RESOURCES / name).read_text()) for name in FILES)
    return channels, variables


@contextmanager
def files_in_use(folder: Path, channels: object, variables: object) -> Iterator[None]:
    """Make both files of a folder those of the code."""
    folder.mkdir(exist_ok=True)
    for name, content in zip(FILES, (channels, variables), strict=True):
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        for module in (schema, cleaning):
            patch.setattr(module, "RESOURCES", folder)
            forget(module)
        yield
    for module in (schema, cleaning):
        forget(module)


@contextmanager
def own_variable_in_use(folder: Path) -> Iterator[None]:
    """Add a laboratory value as the last variable."""
    channels, variables = read_files()
    with files_in_use(folder, [*channels, OWN[0]], variables | {"Own": OWN[1]}):
        yield


def forget(module: ModuleType) -> None:
    """Empty the caches of a module's functions."""
    for function in vars(module).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()
