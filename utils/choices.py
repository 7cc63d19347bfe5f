"""Settings that name an entry of a table: choices in the help, and an error with the most similar name."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import tyro

from utils.config import did_you_mean

T = TypeVar("T")


def one_of(names: Iterable[str]) -> object:
    """Return an annotation by which a text setting shows its choices in the help."""
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}")


def require_choice(table: Iterable[str], name: str, flag: str) -> None:
    """Raise ValueError with the most similar name, unless a name is one of a table's."""
    if name not in table:
        raise ValueError(f"unknown --{flag} {name}{did_you_mean(name, list(table))}")


def look_up(table: Mapping[str, T], name: str, flag: str) -> T:
    """Return the entry of a table; if there is none, raise ValueError with the most similar name."""
    require_choice(table, name, flag)
    return table[name]
