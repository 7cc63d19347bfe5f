"""Names that are known before their modules are imported, so that --help need not wait for PyTorch."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


def resolve(target: str) -> object:
    """Import "module:attribute" and return the attribute.

    >>> resolve("math:pi")
    3.141592653589793
    """
    module, _, attribute = target.partition(":")
    found: object = getattr(import_module(module), attribute)
    return found


def resolve_main(target: str) -> object:
    """Import what a program runs, as `resolve`, in less time.

    Python looks for garbage again and again while a million objects come to be, none of which is garbage.
    It does not look until they are there, and then leaves them alone for good, which also serves processes
    that are forked from this one.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        found = resolve(target)
        gc.freeze()
    finally:
        if was_on:
            gc.enable()
    return found


def import_meanwhile(module: str) -> None:
    """Import a module in a thread, for later use, where this one waits for a library that needs no Python."""
    Thread(target=import_module, args=[module]).start()


class LazyModule:
    """A module that is imported when something of it is first used.

    >>> math = LazyModule("math")
    >>> math.pi
    3.141592653589793
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


class LazyTable(Mapping[str, T]):
    """A table whose keys are known, and whose entries are imported when they are first read.

    >>> table = LazyTable({"pi": "math:pi"})
    >>> list(table), table["pi"]
    (['pi'], 3.141592653589793)
    """

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._targets = targets
        self._entries: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._entries[name] = resolve(self._targets[name])  # type: ignore[assignment]  # as declared
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)


def lazy_exports(package: str, targets: Mapping[str, str]) -> Callable[[str], object]:
    """Return a `__getattr__` by which a package imports names from its modules on first use (PEP 562)."""

    def __getattr__(name: str) -> object:
        if name not in targets:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return resolve(f"{package}.{targets[name]}:{name}")

    return __getattr__
